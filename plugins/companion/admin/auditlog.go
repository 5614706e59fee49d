package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/quotagate/quotagate/plugins/companion/api"
)

type auditLogInput struct {
	Skip   int64  `query:"skip" minimum:"0" maximum:"1000000000" default:"0" doc:"How many to leave out; for long lists go on by cursor."`
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"How many to answer at most; above 200 only as CSV."`
	Cursor string `query:"cursor" maxLength:"20" doc:"The next_cursor of the page before."`
	User   string `query:"user_id" maxLength:"255" doc:"Who did it, or whose account it concerns."`
	Action string `query:"action" maxLength:"100" example:"user.suspended"`
	From   string `query:"from" maxLength:"40" doc:"RFC 3339, or a date."`
	To     string `query:"to" maxLength:"40" doc:"Exclusive."`
	api.Format
}

// auditLog is the answer of GET /v1/admin/audit-log.
type auditLog struct {
	Events     []auditLogEvent `json:"events" nullable:"false" doc:"The newest first."`
	Total      int64           `json:"total" doc:"How many match, on all pages."`
	Skip       int64           `json:"skip"`
	Limit      int             `json:"limit"`
	NextCursor *string         `json:"next_cursor" doc:"null: this was the last page."`
}

type auditLogEvent struct {
	ID             string         `json:"id"`
	Seq            int64          `json:"seq" doc:"Events are numbered without gaps."`
	ActorType      string         `json:"actor_type" doc:"user, cli or system."`
	ActorID        *string        `json:"actor_id"`
	ActorLabel     *string        `json:"actor_label"`
	ImpersonatorID *string        `json:"impersonator_id"`
	Action         string         `json:"action"`
	ResourceType   *string        `json:"resource_type"`
	ResourceID     *string        `json:"resource_id"`
	AccountID      *string        `json:"account_id"`
	Outcome        string         `json:"outcome"`
	Reason         *string        `json:"reason"`
	Changes        map[string]any `json:"changes" doc:"By field: from and to."`
	Metadata       map[string]any `json:"metadata"`
	IPAddress      *string        `json:"ip_address"`
	UserAgent      *string        `json:"user_agent"`
	RequestID      *string        `json:"request_id"`
	PrevHash       string         `json:"prev_hash"`
	Hash           string         `json:"hash"`
	CreatedAt      time.Time      `json:"created_at"`
}

// maxAuditJSON bounds a page that is no table.
const maxAuditJSON = 200

func registerAuditLog(a huma.API, s *service) {
	export[auditLog](a, s, huma.Operation{
		OperationID: "list-audit-log", Method: http.MethodGet, Path: "/v1/admin/audit-log", Summary: "What was done, by whom, to what",
		Description: "`caddy quota audit verify` shows that nothing of it was tampered with. As CSV the cursor of the next page is in X-Next-Cursor.",
	}, listAuditLog)
}

func listAuditLog(ctx context.Context, st *store.Companion, in *auditLogInput) (*huma.StreamResponse, error) {
	if !in.CSV() && in.Limit > maxAuditJSON {
		return nil, api.InvalidQuery("limit", "want 1 to "+strconv.Itoa(maxAuditJSON)+", or format=csv")
	}
	f := store.AuditFilter{User: in.User, Action: in.Action}
	var err error
	for _, bound := range []struct {
		field, text string
		to          *time.Time
	}{{"from", in.From, &f.From}, {"to", in.To, &f.To}} {
		if bound.text == "" {
			continue
		}
		if *bound.to, err = api.Moment(bound.field, bound.text); err != nil {
			return nil, err
		}
	}
	list, err := st.ListAudit(ctx, f, store.AuditPage{Limit: in.Limit, Skip: in.Skip, After: in.Cursor})
	if err != nil {
		return nil, err
	}
	if in.CSV() {
		return auditTable(list), nil
	}
	out := auditLog{Events: make([]auditLogEvent, len(list.Entries)), Total: list.Total, Skip: in.Skip, Limit: in.Limit, NextCursor: orNull(list.Next)}
	for i := range list.Entries {
		out.Events[i] = auditLogEventOf(&list.Entries[i])
	}
	return api.JSON(out)
}

func auditLogEventOf(e *store.AuditEntry) auditLogEvent {
	return auditLogEvent{
		ID: e.ID, Seq: e.Seq, ActorType: e.ActorType, ActorID: orNull(e.ActorID), ActorLabel: orNull(e.ActorLabel),
		ImpersonatorID: orNull(e.Impersonator), Action: e.Action, ResourceType: orNull(e.ResourceType), ResourceID: orNull(e.ResourceID),
		AccountID: orNull(e.Account), Outcome: e.Outcome, Reason: orNull(e.Reason), Changes: object(e.Changes), Metadata: object(e.Metadata),
		IPAddress: orNull(e.IP), UserAgent: orNull(e.UserAgent), RequestID: orNull(e.RequestID),
		PrevHash: e.PrevHash, Hash: e.Hash, CreatedAt: e.CreatedAt.UTC(),
	}
}

// object is what a column of the log holds. A row that was tampered with must not
// hide the others: what is no object is shown as text.
func object(text string) map[string]any {
	v := map[string]any{}
	if err := json.Unmarshal([]byte(text), &v); err != nil || v == nil {
		return map[string]any{"text": text}
	}
	return v
}

func auditTable(list *store.AuditList) *huma.StreamResponse {
	return api.Table{
		Name: "audit-log", Next: list.Next,
		Columns: []string{
			"seq", "created_at", "action", "actor_type", "actor_id", "actor_label", "impersonator_id", "resource_type", "resource_id",
			"account_id", "outcome", "reason", "changes", "metadata", "ip_address", "user_agent", "request_id", "id", "prev_hash", "hash",
		},
		Rows: api.Slice(list.Entries, func(e store.AuditEntry) []string {
			return []string{
				strconv.FormatInt(e.Seq, 10), e.CreatedAt.UTC().Format(time.RFC3339Nano), e.Action, e.ActorType, e.ActorID, e.ActorLabel,
				e.Impersonator, e.ResourceType, e.ResourceID, e.Account, e.Outcome, e.Reason, e.Changes, e.Metadata, e.IP, e.UserAgent,
				e.RequestID, e.ID, e.PrevHash, e.Hash,
			}
		}),
	}.Answer()
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
