package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
)

// Page is the part of a list that is asked for. Embed it in an operation's input.
type Page struct {
	Skip  int64 `query:"skip" minimum:"0" maximum:"1000000000" default:"0" doc:"How many to leave out."`
	Limit int64 `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many to answer at most."`
}

// Match is the precondition of a change. Embed it in an operation's input.
type Match struct {
	IfMatch string `header:"If-Match" doc:"The ETag of what is to be changed: 412 if it is another by now. Without it nothing is compared."`
}

// ETag is the tag of a version: whatever changes with the thing.
func ETag(version string) string {
	sum := sha256.Sum256([]byte(version))
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// Matches reports whether the precondition holds for a tag (RFC 9110, 13.1.1).
func (m Match) Matches(tag string) bool {
	if m.IfMatch == "" || m.IfMatch == "*" {
		return true
	}
	for candidate := range strings.SplitSeq(m.IfMatch, ",") {
		if strings.TrimSpace(candidate) == tag { // a weak tag never matches
			return true
		}
	}
	return false
}

// PreconditionFailed answers 412.
func PreconditionFailed() *Error {
	return Refuse(http.StatusPreconditionFailed, "precondition_failed", "It was changed meanwhile: read it again")
}
