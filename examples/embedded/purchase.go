package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxAnswer bounds what is read of an answer of the gateway, in bytes.
const maxAnswer = 1 << 20

// offerPro opens a page on which a user buys Pro, as the application's own
// frontend would, and answers the lines to print: the page, or the portal of a
// user who has bought already.
func offerPro(ctx context.Context, gateway, token string) (string, error) {
	status, body, err := post(ctx, gateway+"/v1/billing/create-checkout-session", token, `{"plan":"pro"}`)
	if err != nil {
		return "", err
	}
	var answer struct {
		CheckoutURL string `json:"checkout_url"`
		Detail      struct {
			Error     string `json:"error"`
			PortalURL string `json:"portal_url"`
		} `json:"detail"`
	}
	// Another shape is told by the status: a detail may also be a sentence.
	if err := json.Unmarshal(body, &answer); err != nil && status == http.StatusOK {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	portal := fmt.Sprintf(`curl -s -X POST -H "Authorization: Bearer $FREE" %s/v1/billing/customer-portal`, gateway)
	switch {
	case status == http.StatusOK:
		return fmt.Sprintf(`# fiona buys Pro: open the page, pay with 4242 4242 4242 4242, and her limits rise
%s
# and manages it: open the address that this answers; cancel, and her limits fall
%s
`, answer.CheckoutURL, portal), nil
	case status == http.StatusConflict && answer.Detail.Error == "already_subscribed":
		return fmt.Sprintf(`# fiona has bought a plan: she cancels or changes it on the page that this answers
%s
%s
`, portal, answer.Detail.PortalURL), nil
	}
	return "", fmt.Errorf("the gateway answered %d %s", status, body)
}

func post(ctx context.Context, address, token, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the answer: %w", err)
	}
	return res.StatusCode, answer, nil
}
