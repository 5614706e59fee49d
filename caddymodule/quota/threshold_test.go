package quota

import "testing"

func TestThreshold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit      Limit
		used, want int64
	}{
		{Limit{Max: 10}, 7, 0},
		{Limit{Max: 10}, 8, 80},
		{Limit{Max: 10}, 9, 80},
		{Limit{Max: 10}, 10, 100},
		{Limit{Max: 10}, 11, 100},
		{Limit{Max: 3}, 2, 0}, // two thirds: nothing is rounded up
		{Limit{Max: 1}, 0, 0},
		{Limit{Max: 1}, 1, 100},
		{Limit{Max: 0}, 0, 0},
		{Limit{Max: 0}, 5, 0},
		{Limit{Max: 10, Unlimited: true}, 10, 0},
		{Limit{Max: MaxAmount}, MaxAmount, 100},
		{Limit{Max: MaxAmount}, MaxAmount/5*4 - 1, 0},
	} {
		if got := tt.limit.Threshold(tt.used); got != tt.want {
			t.Errorf("%+v, %d used: %d, want %d", tt.limit, tt.used, got, tt.want)
		}
	}
}
