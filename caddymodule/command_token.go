package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	defaultTokenTTL = 15 * time.Minute
	maxTokenTTL     = 24 * time.Hour
)

// bearer is the scheme of Authorization where nobody says another (RFC 6750).
const bearer = "Bearer"

// tokenCommand mints a token for tests and demonstrations.
func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token --user <id>",
		Short: "Makes a short-lived token of a user, for tests and demonstrations",
		Long: `
Makes a token that the config's verifier accepts as one of the auth backend: it is
signed with the secret that both share, so this works only where there is one
(HS256 and its kin). Whoever can run this can be anybody: it reads what the gateway reads.

A claim is a text, --claim role=admin, or with := any JSON, --claim level:=3.`,
		Example: `  caddy quota token --user 42
  curl -H "Authorization: Bearer $(caddy quota token --user 42)" http://localhost:8080/jobs`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("user", "", "Id of the user (required)")
	cmd.Flags().Duration("ttl", defaultTokenTTL, "How long the token is valid, at most 24h")
	cmd.Flags().StringArray("claim", nil, "A further claim, <name>=<text> or <name>:=<JSON>; may be repeated")
	cmd.Flags().Bool("json", false, "Answer as JSON")
	cmd.RunE = runToken
	return cmd
}

func runToken(cmd *cobra.Command, _ []string) error {
	user, err := cmd.Flags().GetString("user")
	if err != nil {
		return err
	}
	ttl, err := cmd.Flags().GetDuration("ttl")
	if err != nil {
		return err
	}
	texts, err := cmd.Flags().GetStringArray("claim")
	if err != nil {
		return err
	}
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	claims, err := parseClaims(texts)
	if err != nil {
		return err
	}
	return withApp(cmd, func(app *App) error {
		token, _, err := app.mint(user, claims, ttl)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd, struct {
				Token     string `json:"token"`
				ExpiresIn int64  `json:"expires_in_seconds"`
			}{token, int64(ttl / time.Second)})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
		return err
	})
}

// parseClaims reads name=text and name:=JSON.
func parseClaims(texts []string) (map[string]any, error) {
	claims := make(map[string]any, len(texts)+1)
	for _, t := range texts {
		name, value, ok := strings.Cut(t, "=")
		name, typed := strings.CutSuffix(name, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("claim %q: write <name>=<text> or <name>:=<JSON>", t)
		}
		if _, twice := claims[name]; twice {
			return nil, fmt.Errorf("claim %q stands twice", name)
		}
		claims[name] = value
		if typed {
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				return nil, fmt.Errorf("claim %q is not JSON: %w", name, err)
			}
			claims[name] = v
		}
	}
	return claims, nil
}

// mint makes a token of the user with the first verifier that can, and says
// behind which scheme that one reads it.
func (a *App) mint(user string, claims map[string]any, ttl time.Duration) (token, scheme string, err error) {
	switch {
	case user == "":
		return "", "", errors.New("--user is missing: name the user whose token it is to be")
	case ttl < time.Second || ttl > maxTokenTTL:
		return "", "", fmt.Errorf("--ttl %s is outside 1s..%s", ttl, maxTokenTTL)
	}
	if _, ok := claims["sub"]; ok {
		return "", "", errors.New("the claim sub is the user's id: use --user")
	}
	if claims == nil {
		claims = make(map[string]any, 1)
	}
	claims["sub"] = user
	var errs []error
	for _, v := range a.verifiers {
		m, ok := v.(Minter)
		if !ok {
			continue
		}
		token, err := m.Mint(claims, ttl)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s, ok := v.(Schemer); ok {
			return token, s.AuthScheme(), nil
		}
		return token, bearer, nil
	}
	if len(errs) > 0 {
		return "", "", fmt.Errorf("minting a token: %w", errors.Join(errs...))
	}
	return "", "", errors.New("minting a token: no verifier of the config holds what tokens are signed with: " +
		"that takes verify jwt with secret or secret_file")
}

// credential reads a token as people copy it, with the scheme of Authorization
// before it or without, which is Bearer.
func credential(text string) (scheme, token string) {
	before, after, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return bearer, before
	}
	return before, strings.TrimSpace(after)
}
