package companion

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/quotagate/quotagate/caddymodule"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
	"github.com/spf13/cobra"
)

// UsageCommand is `caddy quota usage import`: it sets levels to what was
// measured elsewhere, so that what the gateway has counted is corrected.
type UsageCommand struct{}

// The bounds of an import.
const (
	maxUsage       = 64 << 20 // bytes
	maxUsageErrors = 20       // that are reported
)

// CaddyModule returns the module's information.
func (UsageCommand) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "quota.commands.usage", New: func() caddy.Module { return new(UsageCommand) }}
}

// Command implements caddymodule.Commander.
func (*UsageCommand) Command() *cobra.Command {
	imports := withJSON(&cobra.Command{
		Use: "import <file>", Short: "Sets levels, such as the storage in use, to what was measured",
		Long: `
Sets levels (metrics that never reset, such as storage_bytes) to what a CSV file
says; - is standard input. Its first line names the columns:

  account,metric,value[,measured_at]

An account is a user's id, or org:<id>; user:<id> is a user whatever the id looks
like. A value is a whole number in 0..2^53, measured_at a time such as
2026-11-02T15:04:05Z, now by default. The file is checked as a whole first and
written in one transaction: all of it or nothing.`,
		Example: "  caddy quota usage import storage.csv",
		Args:    cobra.ExactArgs(1), RunE: importUsage,
	})
	return group("usage", "Corrects what was counted", imports)
}

func importUsage(cmd *cobra.Command, args []string) error {
	b, err := readInput(cmd, args[0], maxUsage)
	if err != nil {
		return fmt.Errorf("reading the levels: %w", err)
	}
	levels, lines, err := parseLevels(b)
	if err != nil {
		return fmt.Errorf("%s: nothing was imported:\n%w", args[0], err)
	}
	return withStore(cmd, func(s *store.Companion) error {
		if err := s.AwaitFlushes(cmd.Context(), ""); err != nil {
			return fmt.Errorf("%s: nothing was imported: %w", args[0], err)
		}
		if err := s.SetLevels(cmd.Context(), operator(), levels); err != nil {
			var bad *store.LevelError
			if errors.As(err, &bad) {
				return fmt.Errorf("%s: nothing was imported: line %d: %w", args[0], lines[bad.Index], bad.Err)
			}
			return fmt.Errorf("%s: nothing was imported: %w", args[0], err)
		}
		return answer(cmd, struct {
			Levels int `json:"levels"`
		}{len(levels)}, fmt.Sprintf("set %d levels\n", len(levels)))
	})
}

// parseLevels reads the whole file, and reports everything that is wrong with
// it, by line. lines are those of the levels.
func parseLevels(b []byte) (levels []store.Level, lines []int, err error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\ufeff")))) // as spreadsheets write it
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if !slices.Equal(header, []string{"account", "metric", "value"}) &&
		!slices.Equal(header, []string{"account", "metric", "value", "measured_at"}) {
		return nil, nil, errors.New("line 1: want the columns account,metric,value or account,metric,value,measured_at")
	}
	var errs []error
	seen := make(map[[2]string]int)
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return levels, lines, errors.Join(errs...)
		}
		if err != nil {
			return nil, nil, errors.Join(append(errs, err)...)
		}
		line, _ := r.FieldPos(0)
		level, err := parseLevel(record, len(header))
		if first, twice := seen[[2]string{string(level.Account), level.Metric}]; err == nil && twice {
			err = fmt.Errorf("the account's %s stands in line %d already", level.Metric, first)
		}
		if err != nil {
			if errs = append(errs, fmt.Errorf("line %d: %w", line, err)); len(errs) == maxUsageErrors {
				return nil, nil, errors.Join(append(errs, errors.New("and perhaps more"))...)
			}
			continue
		}
		seen[[2]string{string(level.Account), level.Metric}] = line
		levels, lines = append(levels, level), append(lines, line)
	}
}

func parseLevel(record []string, columns int) (store.Level, error) {
	if len(record) != columns {
		return store.Level{}, fmt.Errorf("has %d columns, want %d", len(record), columns)
	}
	l := store.Level{Account: parseAccount(record[0]), Metric: record[1]}
	if l.Account.ID() == "" {
		return l, errors.New("the account is empty")
	}
	if !quota.ValidName(l.Metric) {
		return l, fmt.Errorf("%q is not the name of a metric", l.Metric)
	}
	var err error
	if l.Value, err = strconv.ParseInt(record[2], 10, 64); err != nil || quota.CheckAmount("value", l.Value) != nil {
		return l, fmt.Errorf("the value %q is not a whole number in 0..2^53", record[2])
	}
	if columns == 4 && record[3] != "" {
		if l.MeasuredAt, err = time.Parse(time.RFC3339, record[3]); err != nil {
			return l, fmt.Errorf("measured_at %q is not a time such as 2026-11-02T15:04:05Z", record[3])
		}
	}
	return l, nil
}

func parseAccount(s string) quota.Subject {
	if id, ok := strings.CutPrefix(s, "org:"); ok {
		return quota.OrgSubject(id)
	}
	return quota.UserSubject(strings.TrimPrefix(s, "user:"))
}

// Interface guard.
var _ caddymodule.Commander = (*UsageCommand)(nil)
