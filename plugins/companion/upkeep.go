package companion

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quotagate/quotagate/caddymodule/store"
	"go.uber.org/zap"
)

// The intervals of the companion's upkeep.
const (
	auditEvery   = time.Minute
	tidyEvery    = time.Hour
	upkeepBudget = 30 * time.Second // of one round
	minRetention = 24 * time.Hour   // of audit events
)

// hashDigits of the audit head's hash fit a metric's value: 52 bits, which a
// float64 holds exactly.
const hashDigits = 13

// The gauges are made once for the process, as those of the host are.
var (
	auditHeadSeq = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "quotagate_audit_head_seq", Help: "Number of the newest audit event.",
	})
	auditHeadHash = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "quotagate_audit_head_hash", Help: "The first 13 hexadecimal digits of the newest audit event's hash, as a number.",
	})
)

// registerMetrics adds the gauges to a config's registry, which may have them:
// a config may be provisioned twice.
func registerMetrics(r *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{auditHeadSeq, auditHeadHash} {
		var again prometheus.AlreadyRegisteredError
		if err := r.Register(c); err != nil && !errors.As(err, &again) {
			return err
		}
	}
	return nil
}

// watchAudit says each minute what the newest audit event is: whoever keeps the
// log or the metric elsewhere can prove with it that nothing was tampered with.
func (a *App) watchAudit(ctx context.Context) {
	every(ctx, auditEvery, func(ctx context.Context) {
		if err := a.reportAuditHead(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("the audit log's head cannot be read", zap.Error(err))
		}
	})
}

func (a *App) reportAuditHead(ctx context.Context) error {
	s, err := a.Store()
	if err != nil {
		return err
	}
	return a.showAuditHead(ctx, s)
}

func (a *App) showAuditHead(ctx context.Context, s *store.Companion) error {
	head, err := s.AuditHead(ctx)
	if err != nil {
		return err
	}
	prefix, err := strconv.ParseUint(head.Hash[:min(hashDigits, len(head.Hash))], 16, 64)
	if err != nil {
		return fmt.Errorf("the hash of the audit log's head is not hexadecimal: %w", err)
	}
	auditHeadSeq.Set(float64(head.Seq))
	auditHeadHash.Set(float64(prefix))
	a.log.Info("audit log head", zap.Int64("seq", head.Seq), zap.String("hash", head.Hash))
	return nil
}

// tidy removes what nobody needs any more. One of several processes does it.
func (a *App) tidy(ctx context.Context) {
	holder := uuid.NewString()
	every(ctx, tidyEvery, func(ctx context.Context) {
		if err := a.tidyOnce(ctx, holder); err != nil && ctx.Err() == nil {
			a.log.Error("tidying the records failed", zap.Error(err))
		}
	})
}

func (a *App) tidyOnce(ctx context.Context, holder string) error {
	s, err := a.Store()
	if err != nil {
		return err
	}
	return a.tidyStore(ctx, s, holder)
}

func (a *App) tidyStore(ctx context.Context, s *store.Companion, holder string) error {
	held, err := s.TakeLease(ctx, "companion_tidy", holder, tidyEvery/2)
	if err != nil || !held {
		return err
	}
	if err := s.PruneRequests(ctx); err != nil {
		return err
	}
	if a.AuditRetention == 0 {
		return nil
	}
	removed, err := s.CutAudit(ctx, time.Duration(a.AuditRetention))
	if removed > 0 {
		a.log.Info("audit events beyond the retention were removed", zap.Int64("events", removed))
	}
	return err
}

// every calls f now and then at each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		round, cancel := context.WithTimeout(ctx, upkeepBudget)
		f(round)
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
