package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

func newAuth(t *testing.T) *authBackend {
	t.Helper()
	a, err := newAuthBackend(testSecret, demoUsers(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// call answers the status and the decoded body.
func call(t *testing.T, h http.Handler, method, path, token, body string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if strings.Contains(body, "=") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	object := map[string]any{}
	if strings.HasPrefix(w.Body.String(), "{") {
		if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil {
			t.Fatalf("%s %s: %v in %q", method, path, err, w.Body)
		}
	}
	return w.Code, object
}

func TestAuthBackend(t *testing.T) {
	t.Parallel()
	a := newAuth(t)
	status, first := call(t, a, "POST", "/v1/auth/login", "stale", "username=fiona&password="+demoPassword)
	if status != http.StatusOK {
		t.Fatalf("login: %d %v", status, first)
	}
	access, refresh := first["access_token"].(string), first["refresh_token"].(string)

	tests := map[string]struct {
		method, path, token, body string
		want                      int
	}{
		"me":                          {"GET", "/v1/auth/me", access, "", 200},
		"me without a token":          {"GET", "/v1/auth/me", "", "", 401},
		"me with a refresh token":     {"GET", "/v1/auth/me", refresh, "", 401},
		"login by e-mail":             {"POST", "/v1/auth/login", "", `{"email":"Paul@example.com","password":"` + demoPassword + `"}`, 200},
		"login with a wrong password": {"POST", "/v1/auth/login", "", `{"username":"paul","password":"x"}`, 401},
		"login of nobody":             {"POST", "/v1/auth/login", "", `{"username":"nobody","password":"x"}`, 401},
		"login without a name":        {"POST", "/v1/auth/login", "", `{"password":"x"}`, 422},
		"login with broken JSON":      {"POST", "/v1/auth/login", "", `{`, 422},
		"refresh from the body":       {"POST", "/v1/auth/refresh", "stale", `{"refresh_token":"` + refresh + `"}`, 200},
		"refresh from the header":     {"POST", "/v1/auth/refresh", refresh, "", 200},
		"refresh with an access token": {
			"POST", "/v1/auth/refresh", access, "", 401,
		},
		"refresh with nothing":          {"POST", "/v1/auth/refresh", "", "", 422},
		"register":                      {"POST", "/v1/auth/register", "", `{"email":"new@example.com","username":"new","password":"x"}`, 201},
		"register a taken name":         {"POST", "/v1/auth/register", "", `{"email":"other@example.com","username":"Fiona","password":"x"}`, 409},
		"register without a password":   {"POST", "/v1/auth/register", "", `{"email":"a@example.com","username":"a"}`, 422},
		"register without an address":   {"POST", "/v1/auth/register", "", `{"email":"a","username":"a","password":"x"}`, 422},
		"reset":                         {"POST", "/v1/auth/password-reset/request", "", `{"email":"nobody@example.com"}`, 200},
		"reset with a made-up code":     {"POST", "/v1/auth/password-reset/confirm", "", `{"token":"x"}`, 400},
		"second factor, made up":        {"POST", "/v1/auth/2fa/verify", "", `{"code":"123456"}`, 400},
		"logout":                        {"POST", "/v1/auth/logout", access, "", 200},
		"unknown path":                  {"GET", "/v1/auth/nothing", "", "", 404},
		"another method":                {"GET", "/v1/auth/login", "", "", 405},
		"slash too many":                {"POST", "/v1/auth/login/", "", "", 307},
		"slashes that are not merged":   {"POST", "//v1/auth/login", "", "", 404},
		"slash behind an unknown path":  {"POST", "/v1/auth/nothing/", "", "", 404},
		"dots that are not followed":    {"GET", "/v1/x/../auth/me", access, "", 404},
		"token of somebody not present": {"GET", "/v1/auth/me", foreignToken(t, a), "", 401},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, body := call(t, a, tt.method, tt.path, tt.token, tt.body); got != tt.want {
				t.Errorf("%s %s: %d %v, want %d", tt.method, tt.path, got, body, tt.want)
			}
		})
	}
}

func foreignToken(t *testing.T, a *authBackend) string {
	t.Helper()
	token, err := a.sign("nobody", "nobody@example.com", "s", "access", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestExpiredTokenIsRefused(t *testing.T) {
	t.Parallel()
	a, err := newAuthBackend(testSecret, demoUsers(), func() time.Time { return time.Now().Add(-24 * time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	token, err := a.sign(demoUsers()[0].id, "", "s", "access", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := call(t, a, "GET", "/v1/auth/me", token, ""); status != http.StatusUnauthorized || body["detail"] != "Could not validate credentials" {
		t.Errorf("%d %v", status, body)
	}
}

func TestDashboardBackend(t *testing.T) {
	t.Parallel()
	a, d := newAuth(t), newDashboardBackend(testSecret)
	token, err := a.sign("u1", "", "s", "access", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := a.sign("u2", "", "s", "access", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := call(t, d, "POST", "/jobs", "", ""); status != http.StatusUnauthorized {
		t.Errorf("a job without a token: %d", status)
	}
	if status, body := call(t, d, "POST", "/jobs", token, ""); status != http.StatusCreated || body["status"] != "queued" {
		t.Errorf("a job: %d %v", status, body)
	}
	for who, want := range map[string]float64{token: 1, other: 0} {
		if _, body := call(t, d, "GET", "/jobs", who, ""); body["total"] != want {
			t.Errorf("jobs: %v, want %v", body, want)
		}
	}
	status, body := call(t, d, "POST", "/files", token, "12345")
	if status != http.StatusCreated || body["size_bytes"] != 5.0 {
		t.Fatalf("a file: %d %v", status, body)
	}
	path := "/files/" + body["id"].(string)
	for _, step := range []struct {
		who  string
		want int
	}{{other, 404}, {token, 204}, {token, 404}} {
		if status, _ := call(t, d, "DELETE", path, step.who, ""); status != step.want {
			t.Errorf("removing a file: %d, want %d", status, step.want)
		}
	}
	if status, body := call(t, d, "GET", "/none", "", ""); status != http.StatusNotFound || body["detail"] != "Not Found" {
		t.Errorf("an unknown path: %d %v", status, body)
	}
}

func TestEventsEndWithTheirRequest(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newDashboardBackend(testSecret))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 16)
	if _, err := res.Body.Read(first); err != nil || !strings.HasPrefix(string(first), "id: 1\n") {
		t.Errorf("first event %q, %v", first, err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecretsAreKept(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "data")
	first, err := loadSecrets(folder)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadSecrets(folder)
	if err != nil {
		t.Fatal(err)
	}
	if first != second || len(first.jwt) != 64 {
		t.Errorf("secrets changed, or are of %d bytes", len(first.jwt))
	}
	file := filepath.Join(folder, "jwt_secret")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSecrets(folder); err == nil || !strings.Contains(err.Error(), "jwt_secret") {
		t.Errorf("a short secret: %v", err)
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	address := server.Listener.Addr().String()
	s := settings{http: "1", metrics: "1", admin: address, auth: "127.0.0.1:1", dashboard: "127.0.0.1:1"}
	err := checkPorts(t.Context(), s)
	if err == nil || !strings.Contains(err.Error(), address+" is taken") || !strings.Contains(err.Error(), "CADDY_ADMIN=") {
		t.Errorf("error %v", err)
	}
	s.admin = "127.0.0.1:1"
	if err := checkPorts(t.Context(), s); err != nil {
		t.Error(err)
	}
}
