package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/quotagate/quotagate/caddymodule/store/column"
	"github.com/quotagate/quotagate/caddymodule/store/sqlgen"
)

// auditCheckpoint is the action by which retention says what it has removed:
// resource_id is the last event that is gone, metadata holds its hash.
const auditCheckpoint = "audit.checkpoint"

// auditBatch is how many events are verified at a time.
const auditBatch = 1000

// ParseAuditHead reads a head as AuditHead.String writes it. Of the hash the
// first 13 digits do, which the metrics carry.
func ParseAuditHead(s string) (AuditHead, error) {
	seq, hash, ok := strings.Cut(s, ":")
	h := AuditHead{Hash: strings.ToLower(hash)}
	var err error
	const fewest = 13
	h.Seq, err = strconv.ParseInt(seq, 10, 64)
	if !ok || err != nil || h.Seq < 0 || len(hash) < fewest || len(hash) > len(auditGenesis) || strings.Trim(h.Hash, "0123456789abcdef") != "" {
		return AuditHead{}, fmt.Errorf("%q is not the head of an audit log: write its number, a colon and at least %d digits of its hash", s, fewest)
	}
	return h, nil
}

// AuditFault says where the audit log is not what was written.
type AuditFault struct {
	Seq  int64
	What string
}

func (e *AuditFault) Error() string { return fmt.Sprintf("event %d %s", e.Seq, e.What) }

// AuditReport is what VerifyAudit has found to be whole.
type AuditReport struct {
	First, Last int64 // the events that are there; 0: none
	Head        AuditHead
	// Cut is the last event that retention has removed, CutAt the event that says so; 0: none.
	Cut, CutAt int64
}

// VerifyAudit recomputes the whole log. With a head that was known before, any
// event up to it that was altered, removed, inserted or moved is an *AuditFault;
// without one (nil) only what breaks the chain is found, since whoever may write
// the tables could have made the chain anew. Rows that retention has removed
// count as removed unless an event up to the known head says so.
func (s *Companion) VerifyAudit(ctx context.Context, known *AuditHead) (*AuditReport, error) {
	var report *AuditReport
	err := s.read(ctx, func(q *sqlgen.Queries) error {
		v := &auditVerifier{known: known, q: q}
		if err := v.run(ctx); err != nil {
			return err
		}
		report = &v.report
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verifying the audit log: %w", err)
	}
	return report, nil
}

type auditVerifier struct {
	q      *sqlgen.Queries
	known  *AuditHead
	report AuditReport
	// prev is the event before the next one.
	prev AuditHead
}

func (v *auditVerifier) run(ctx context.Context) error {
	head, err := v.q.AuditHead(ctx)
	if err != nil {
		return err
	}
	v.report.Head = AuditHead{head.Seq, head.Hash}
	if err := v.begin(ctx); err != nil {
		return err
	}
	for after := int64(0); ; after = v.report.Last {
		rows, err := v.q.AuditAfter(ctx, sqlgen.AuditAfterParams{Seq: after, Limit: auditBatch})
		if err != nil {
			return err
		}
		for i := range rows {
			if err := v.next(&rows[i]); err != nil {
				return err
			}
		}
		if len(rows) < auditBatch {
			break
		}
	}
	switch {
	case v.known != nil && v.known.Seq > v.prev.Seq:
		return &AuditFault{v.known.Seq, fmt.Sprintf("is missing: the log ends at %d", v.prev.Seq)}
	case v.prev != v.report.Head:
		return &AuditFault{v.prev.Seq, fmt.Sprintf("is the last, but the log's head is %s", v.report.Head)}
	}
	return nil
}

// begin finds what comes before the first event.
func (v *auditVerifier) begin(ctx context.Context) error {
	v.prev = AuditHead{0, auditGenesis}
	first, err := v.q.FirstAudit(ctx)
	if err != nil {
		return err
	}
	v.report.First = first
	if first == 0 || first == 1 {
		return v.atHead()
	}
	rows, err := v.q.AuditCheckpoints(ctx)
	if err != nil {
		return err
	}
	later := int64(0)
	for _, r := range rows {
		cut, err := checkpoint(r.ResourceID, r.Metadata)
		switch {
		case err != nil:
			return &AuditFault{r.Seq, "is not a readable checkpoint: " + err.Error()}
		case cut.Seq != first-1:
		case v.known != nil && r.Seq > v.known.Seq:
			later = r.Seq
		default:
			v.prev, v.report.Cut, v.report.CutAt = cut, cut.Seq, r.Seq
			return v.atHead()
		}
	}
	if later > 0 {
		return &AuditFault{1, fmt.Sprintf("up to %d are missing: event %d says that retention removed them, but the known head is older. "+
			"Verify with a head from %d on if you trust it", first-1, later, later)}
	}
	return &AuditFault{1, fmt.Sprintf("up to %d are missing, and no checkpoint says that retention removed them", first-1)}
}

// checkpoint reads what a checkpoint says: the last event that is gone.
func checkpoint(id, metadata string) (AuditHead, error) {
	var m struct {
		Hash string `json:"hash"`
	}
	if err := json.Unmarshal([]byte(metadata), &m); err != nil {
		return AuditHead{}, err
	}
	cut, err := strconv.ParseInt(id, 10, 64)
	return AuditHead{cut, m.Hash}, err
}

// next checks one event against the one before it.
func (v *auditVerifier) next(r *sqlgen.AuditEvent) error {
	switch {
	case r.Seq != v.prev.Seq+1:
		return &AuditFault{v.prev.Seq + 1, fmt.Sprintf("is missing: %d follows %d", r.Seq, v.prev.Seq)}
	case r.PrevHash != v.prev.Hash:
		return &AuditFault{r.Seq, "does not follow from the one before it"}
	case r.Hash != auditHash(r):
		return &AuditFault{r.Seq, "was altered: its content does not have its hash"}
	}
	v.prev = AuditHead{r.Seq, r.Hash}
	v.report.Last = r.Seq
	return v.atHead()
}

// atHead compares with the known head where that is reached.
func (v *auditVerifier) atHead() error {
	if v.known == nil || v.known.Seq != v.prev.Seq || strings.HasPrefix(v.prev.Hash, v.known.Hash) {
		return nil
	}
	return &AuditFault{v.prev.Seq, "is not the one that was known: the log up to it was made anew"}
}

// CutAudit removes the events that are older than keep, after it has written a
// checkpoint with the number and hash of the last of them. It answers how many
// are gone; where there are none it writes nothing.
func (s *Companion) CutAudit(ctx context.Context, keep time.Duration) (int64, error) {
	var removed int64
	err := s.write(ctx, func(q *sqlgen.Queries) error {
		removed = 0
		head, err := q.AuditHead(ctx)
		if err != nil {
			return err
		}
		since, err := q.FirstAuditSince(ctx, column.At(s.now().Add(-keep)))
		if err != nil {
			return err
		}
		cut := head.Seq
		if since > 0 {
			cut = since - 1
		}
		last, err := first(q.AuditAt(ctx, cut))
		if err != nil || last == nil || last.Action == auditCheckpoint && since == 0 {
			return err // nothing that old, or nothing but the checkpoint of the last time
		}
		a := &auditor{}
		a.add(AuditEvent{
			Action: auditCheckpoint, ResourceType: "audit", ResourceID: strconv.FormatInt(cut, 10),
			Metadata: map[string]any{"hash": last.Hash, "older_than": s.now().Add(-keep).UTC().Format(time.RFC3339)},
		})
		if err := s.appendAudit(ctx, q, a); err != nil {
			return err
		}
		removed, err = q.CutAudit(ctx, cut)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cutting the audit log: %w", err)
	}
	return removed, nil
}
