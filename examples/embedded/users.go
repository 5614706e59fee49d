package main

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// demoPassword is every demo user's.
const demoPassword = "demo-password"

// demoUser is a user that is there from the start. Ids are fixed, so that
// subscriptions and usage in the records are still theirs after a restart.
type demoUser struct {
	id, username string
	plan         string // empty: none, which is the default plan
}

func (u demoUser) email() string { return u.username + "@example.com" }

// adminID is the demo user who administers.
const adminID = "018f3a10-0000-7000-8000-000000000004"

func demoUsers() []demoUser {
	return []demoUser{
		{id: "018f3a10-0000-7000-8000-000000000001", username: "fiona"},
		{id: "018f3a10-0000-7000-8000-000000000002", username: "paul", plan: "pro"},
		{id: "018f3a10-0000-7000-8000-000000000003", username: "erin", plan: "enterprise"},
		{id: adminID, username: "ada"},
	}
}

// user is one row of the auth backend's table.
type user struct {
	ID        string `json:"id"`
	Email     string `json:"email"`
	Username  string `json:"username"`
	Role      string `json:"role"`
	Status    string `json:"status"`
	Verified  bool   `json:"is_verified"`
	TOTP      bool   `json:"two_factor_enabled"`
	CreatedAt string `json:"created_at"`

	salt, hash []byte
}

// userTable keeps users in memory.
type userTable struct {
	mu     sync.Mutex
	byID   map[string]*user
	byName map[string]*user // by lower-case username and by e-mail
}

func newUserTable() *userTable {
	return &userTable{byID: map[string]*user{}, byName: map[string]*user{}}
}

// add makes a user. ok is false where the e-mail or the username is taken.
func (t *userTable) add(id, email, username, password string, now time.Time) (u *user, ok bool, err error) {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	hash, err := hashPassword(password, salt)
	if err != nil {
		return nil, false, err
	}
	email, name := strings.ToLower(email), strings.ToLower(username)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byName[email] != nil || t.byName[name] != nil {
		return nil, false, nil
	}
	if id == "" {
		id = uuid.NewString()
	}
	u = &user{
		ID: id, Email: email, Username: username, Role: "user", Status: "active", Verified: true,
		CreatedAt: timestamp(now), salt: salt, hash: hash,
	}
	t.byID[id], t.byName[email], t.byName[name] = u, u, u
	return u, true, nil
}

// get is the user with the id, nil if there is none.
func (t *userTable) get(id string) *user {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// login is the user with the name (a username or an e-mail) and the password,
// nil if there is none.
func (t *userTable) login(name, password string) (*user, error) {
	t.mu.Lock()
	u := t.byName[strings.ToLower(name)]
	t.mu.Unlock()
	salt := make([]byte, 16) // an unknown name takes as long as a wrong password
	if u != nil {
		salt = u.salt
	}
	hash, err := hashPassword(password, salt)
	if err != nil {
		return nil, err
	}
	if u == nil || subtle.ConstantTimeCompare(hash, u.hash) == 0 {
		return nil, nil
	}
	return u, nil
}

func hashPassword(password string, salt []byte) ([]byte, error) {
	// Few rounds: the users are made up and live in memory only.
	hash, err := pbkdf2.Key(sha256.New, password, salt, 10_000, 32)
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	return hash, nil
}
