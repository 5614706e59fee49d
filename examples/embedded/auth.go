package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// How long tokens are good for.
const (
	accessTTL  = 30 * time.Minute
	refreshTTL = 14 * 24 * time.Hour
	// demoTTL is for the tokens that `make run` prints.
	demoTTL = 12 * time.Hour
)

// authBackend stands in for the auth backend: registration, login, tokens,
// profile, and what surrounds them. Users live in memory.
type authBackend struct {
	router
	secret []byte
	users  *userTable
	now    func() time.Time
}

// newAuthBackend makes the backend with the demo users in it.
func newAuthBackend(secret []byte, users []demoUser, now func() time.Time) (*authBackend, error) {
	a := &authBackend{router: router{http.NewServeMux()}, secret: secret, users: newUserTable(), now: now}
	for _, u := range users {
		if _, _, err := a.users.add(u.id, u.email(), u.username, demoPassword, now()); err != nil {
			return nil, err
		}
	}
	a.mux.HandleFunc("POST /v1/auth/register", a.register)
	a.mux.HandleFunc("POST /v1/auth/login", a.login)
	a.mux.HandleFunc("POST /v1/auth/refresh", a.refresh)
	a.mux.HandleFunc("POST /v1/auth/logout", requireUser(secret, a.logout))
	a.mux.HandleFunc("GET /v1/auth/me", requireUser(secret, a.me))
	a.mux.HandleFunc("POST /v1/auth/verify-email", confirm("token", "Invalid or expired verification token"))
	a.mux.HandleFunc("POST /v1/auth/password-reset/request", a.requestReset)
	a.mux.HandleFunc("POST /v1/auth/password-reset/confirm", confirm("token", "Invalid or expired reset token"))
	a.mux.HandleFunc("POST /v1/auth/2fa/verify", confirm("code", "Invalid two-factor code"))
	a.mux.HandleFunc("GET /v1/auth/health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	return a, nil
}

// tokens is the answer to a login and to a refresh.
type tokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"` // seconds
}

func (a *authBackend) register(w http.ResponseWriter, r *http.Request) {
	fields, ok := readFields(w, r, "email", "username", "password")
	if !ok {
		return
	}
	if !strings.Contains(fields["email"], "@") {
		writeJSON(w, http.StatusUnprocessableEntity, detail{[]invalid{{
			Type: "value_error", Loc: []string{"body", "email"}, Msg: "value is not a valid email address",
		}}})
		return
	}
	u, ok, err := a.users.add("", fields["email"], fields["username"], fields["password"], a.now())
	switch {
	case err != nil:
		writeError(w, http.StatusInternalServerError, "Internal Server Error")
	case !ok:
		writeError(w, http.StatusConflict, "Email or username already registered")
	default:
		writeJSON(w, http.StatusCreated, u)
	}
}

func (a *authBackend) login(w http.ResponseWriter, r *http.Request) {
	fields, ok := readFields(w, r, "password")
	if !ok {
		return
	}
	name := fields["username"]
	if name == "" {
		name = fields["email"]
	}
	if name == "" {
		writeMissing(w, "username")
		return
	}
	u, err := a.users.login(name, fields["password"])
	switch {
	case err != nil:
		writeError(w, http.StatusInternalServerError, "Internal Server Error")
	case u == nil:
		writeError(w, http.StatusUnauthorized, "Incorrect username or password")
	default:
		a.answerTokens(w, u, uuid.NewString())
	}
}

// refresh takes the refresh token from the body, or from the Authorization header.
func (a *authBackend) refresh(w http.ResponseWriter, r *http.Request) {
	fields, ok := readFields(w, r)
	if !ok {
		return
	}
	token := fields["refresh_token"]
	if token == "" {
		token = bearer(r)
	}
	if token == "" {
		writeMissing(w, "refresh_token")
		return
	}
	c, err := verify(a.secret, token, "refresh")
	if err != nil {
		writeError(w, http.StatusUnauthorized, "Invalid refresh token")
		return
	}
	u := a.users.get(c.Subject)
	if u == nil {
		writeError(w, http.StatusUnauthorized, "Invalid refresh token")
		return
	}
	a.answerTokens(w, u, c.SID)
}

func (a *authBackend) answerTokens(w http.ResponseWriter, u *user, session string) {
	access, err := a.sign(u.ID, u.Email, session, "access", accessTTL)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	refresh, err := a.sign(u.ID, u.Email, session, "refresh", refreshTTL)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	writeJSON(w, http.StatusOK, tokens{
		AccessToken: access, RefreshToken: refresh, TokenType: "bearer", ExpiresIn: int(accessTTL.Seconds()),
	})
}

func (a *authBackend) sign(id, email, session, kind string, ttl time.Duration) (string, error) {
	now := a.now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		Type: kind, SID: session, Email: email,
		RegisteredClaims: jwt.RegisteredClaims{
			ID: uuid.NewString(), Subject: id,
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
	}).SignedString(a.secret)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return token, nil
}

func (a *authBackend) me(w http.ResponseWriter, _ *http.Request, c *claims) {
	u := a.users.get(c.Subject)
	if u == nil {
		writeError(w, http.StatusUnauthorized, "Could not validate credentials")
		return
	}
	writeJSON(w, http.StatusOK, u)
}

// logout says yes: sessions of the stand-in are not kept.
func (a *authBackend) logout(w http.ResponseWriter, _ *http.Request, _ *claims) {
	writeJSON(w, http.StatusOK, map[string]string{"message": "Successfully logged out"})
}

// requestReset says the same whether the address is known or not.
func (a *authBackend) requestReset(w http.ResponseWriter, r *http.Request) {
	if _, ok := readFields(w, r, "email"); ok {
		writeJSON(w, http.StatusOK, map[string]string{"message": "If the email exists, a reset link has been sent"})
	}
}

// confirm refuses every code: nothing is sent by e-mail, and no demo user has
// a second factor, so none can be right.
func confirm(field, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := readFields(w, r, field); ok {
			writeError(w, http.StatusBadRequest, message)
		}
	}
}
