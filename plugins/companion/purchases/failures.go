package purchases

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/plugins/companion/api"
	"github.com/quotagate/quotagate/plugins/companion/billing"
	"go.uber.org/zap"
)

// subscribed answers who wants to buy and has bought already.
func subscribed(portal string) error {
	e := api.Refuse(http.StatusConflict, string(billing.AlreadySubscribed), "You have a subscription already: change it on its page")
	e.Detail = struct {
		api.Refusal
		PortalURL string `json:"portal_url"`
	}{e.Detail.(api.Refusal), portal}
	return e
}

// failure is what the client is told of an error. A fault is logged; the client
// learns that something is down, and no reason.
func (s *service) failure(ctx context.Context, operation string, err error) error {
	var told huma.StatusError
	if errors.As(err, &told) {
		return told
	}
	refusal := billing.RefusalOf(err)
	if a := answers(refusal); a != nil {
		if refusal == billing.ProviderDown || refusal == billing.RefusedByProvider {
			s.log.Error("the payment provider did not do what a user asked for", zap.String("operation", operation), zap.Error(err))
		}
		return a
	}
	if ctx.Err() != nil {
		s.log.Debug("the client left before it was answered", zap.String("operation", operation), zap.Error(err))
	} else {
		s.log.Error("answering failed", zap.String("operation", operation), zap.Error(err))
	}
	return api.Unavailable()
}

func answers(r billing.Refusal) *api.Error {
	var status int
	var message string
	switch r {
	case billing.AlreadySubscribed:
		status, message = http.StatusConflict, "You have a subscription already"
	case billing.NoBillingAccount:
		status, message = http.StatusConflict, "You have never bought anything"
	case billing.NoSubscription:
		status, message = http.StatusConflict, "You have no paid subscription"
	case billing.SamePlan:
		status, message = http.StatusConflict, "Your subscription is of that plan already"
	case billing.PlanNotFound:
		status, message = http.StatusNotFound, "There is no such plan"
	case billing.PlanNotForSale:
		status, message = http.StatusNotFound, "That plan is not for sale"
	case billing.SessionNotFound:
		status, message = http.StatusNotFound, "You have no such checkout session"
	case billing.AccountDeleted:
		status, message = http.StatusForbidden, quota.Refuse(quota.CodeDeleted).Message
	case billing.PaymentDeclined:
		status, message = http.StatusPaymentRequired, "The payment was declined, and nothing has changed"
	case billing.RefusedByProvider:
		status, message = http.StatusConflict, "The payment provider does not do that with this subscription"
	case billing.ProviderDown:
		status, message = http.StatusBadGateway, "Billing is not available at the moment"
	default:
		return nil
	}
	return api.Refuse(status, string(r), message)
}
