package stripefake

import (
	"fmt"
	"net/http"
)

// Types of errors, as the API's envelope names them.
const (
	typeInvalidRequest = "invalid_request_error"
	typeCard           = "card_error"
	typeAPI            = "api_error"
	typeIdempotency    = "idempotency_error"
)

// apiError is an answer that says no.
type apiError struct {
	Status      int
	Type        string
	Code        string
	DeclineCode string
	Param       string
	Message     string
	Charge      string
	Intent      object // the payment intent that was declined
}

// Error implements error.
func (e *apiError) Error() string { return e.Message }

// body is the envelope.
func (e *apiError) body(requestID string) object {
	o := object{"type": e.Type, "message": e.Message}
	for name, value := range map[string]string{
		"code": e.Code, "decline_code": e.DeclineCode, "param": e.Param, "charge": e.Charge,
	} {
		if value != "" {
			o[name] = value
		}
	}
	if e.Code != "" {
		o["doc_url"] = "https://stripe.com/docs/error-codes/" + e.Code
	}
	if e.Intent != nil {
		o["payment_intent"] = e.Intent
	}
	o["request_log_url"] = "https://dashboard.stripe.com/logs/" + requestID
	return object{"error": o}
}

// invalid is a request that cannot be right.
func invalid(param, format string, args ...any) *apiError {
	return &apiError{
		Status: http.StatusBadRequest, Type: typeInvalidRequest, Param: param, Message: fmt.Sprintf(format, args...),
	}
}

// missing is a parameter that was not sent.
func missing(param string) *apiError {
	e := invalid(param, "Missing required param: %s.", param)
	e.Code = "parameter_missing"
	return e
}

// noSuch is an object that is not there: 404 in the address, 400 in a parameter.
func noSuch(kind, id, param string) *apiError {
	e := invalid(param, "No such %s: '%s'", kind, id)
	e.Code = "resource_missing"
	if param == "id" {
		e.Status = http.StatusNotFound
	}
	return e
}

// unsupported is something that Stripe does and the fake does not: it says so
// instead of pretending.
func unsupported(param, format string, args ...any) *apiError {
	return invalid(param, "not supported by the fake: %s", fmt.Sprintf(format, args...))
}
