package quota

// Threshold says that an account has used a part of one of its quotas that it
// is to be told of. It is raised once for each account, metric, period and limit.
type Threshold struct {
	Account Subject
	Metric  string
	Start   int64 // of the period, Unix seconds; 0 for a level
	// Percent of the limit: 80 or 100.
	Percent     int64
	Limit, Used int64
}

// The parts of a quota, in percent, that accounts are told of.
const (
	ThresholdNear    = 80
	ThresholdReached = 100
)

// Threshold is the highest threshold that used has reached, in percent, 0 for
// none. Of nothing, and of what is unlimited, no part can be used.
func (l Limit) Threshold(used int64) int64 {
	switch {
	case l.Unlimited || l.Max <= 0 || used*100 < l.Max*ThresholdNear: // amounts are at most 2^53
		return 0
	case used < l.Max:
		return ThresholdNear
	default:
		return ThresholdReached
	}
}
