package companion

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quotagate/quotagate/caddymodule/quota"
	"github.com/quotagate/quotagate/caddymodule/store"
)

func TestParseLevels(t *testing.T) {
	t.Parallel()
	const head, dated = "account,metric,value\n", "account,metric,value,measured_at\n"
	at := time.Date(2026, 11, 2, 15, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name, file string
		want       []store.Level
		lines      []int
		fault      string
	}{
		{"none", head, nil, nil, ""},
		{"kinds", head + "42,storage_bytes,1\n\norg:acme,storage_bytes,0\nuser:org:x,storage_bytes,2\n\"a,b\",storage_bytes,9007199254740992\n", []store.Level{
			{Account: "user:42", Metric: "storage_bytes", Value: 1}, {Account: "org:acme", Metric: "storage_bytes"},
			{Account: "user:org:x", Metric: "storage_bytes", Value: 2}, {Account: "user:a,b", Metric: "storage_bytes", Value: quota.MaxAmount},
		}, []int{2, 4, 5, 6}, ""},
		{"dates", "\ufeff" + dated + "42,s,1,2026-11-02T15:04:05Z\n43,s,1,\n", []store.Level{
			{Account: "user:42", Metric: "s", Value: 1, MeasuredAt: at}, {Account: "user:43", Metric: "s", Value: 1},
		}, []int{2, 3}, ""},
		{"empty", "", nil, nil, "line 1: want the columns"},
		{"header", "a,b,c\n", nil, nil, "line 1: want the columns"},
		{"negative", head + "42,s,-1\n", nil, nil, `line 2: the value "-1"`},
		{"large", head + "42,s,9007199254740993\n", nil, nil, "0..2^53"},
		{"fraction", head + "42,s,1.5\n", nil, nil, "line 2: the value"},
		{"metric", head + "42,S,1\n", nil, nil, `line 2: "S" is not the name of a metric`},
		{"account", head + "org:,s,1\n", nil, nil, "line 2: the account is empty"},
		{"date", dated + "42,s,1,yesterday\n", nil, nil, `line 2: measured_at "yesterday"`},
		{"columns", head + "42,s,1,2\n", nil, nil, "line 2: has 4 columns, want 3"},
		{"twice", head + "42,s,1\nuser:42,s,1\n", nil, nil, "line 3: the account's s stands in line 2 already"},
		{"quotes", head + "42,s,\"1\n", nil, nil, "line"},
		{"many", head + strings.Repeat("42,s,x\n", 100), nil, nil, "and perhaps more"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, lines, err := parseLevels([]byte(tc.file))
			if tc.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fault) {
					t.Errorf("error %v, want one with %q", err, tc.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || !slices.Equal(lines, tc.lines) {
				t.Errorf("lines %v, want %v; levels (-want +got):\n%s", lines, tc.lines, diff)
			}
		})
	}
}

func FuzzParseLevels(f *testing.F) {
	for _, seed := range []string{"", "account,metric,value\n42,s,1\n", "account,metric,value,measured_at\norg:a,s,1,2026-11-02T15:04:05Z\n", "account,metric,value\n\"", "\ufeff\n\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		levels, lines, err := parseLevels(b)
		if err != nil {
			return
		}
		if len(levels) != len(lines) {
			t.Fatalf("%d levels on %d lines", len(levels), len(lines))
		}
		for _, l := range levels {
			if l.Account.ID() == "" || !quota.ValidName(l.Metric) || quota.CheckAmount("value", l.Value) != nil {
				t.Errorf("accepted %+v", l)
			}
		}
	})
}
