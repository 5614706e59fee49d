package admin

import "github.com/danielgtaylor/huma/v2"

// register adds the operations to the API.
func register(a huma.API, s *service) {
	registerAdmins(a, s)
	registerUsers(a, s)
	registerPlans(a, s)
	registerOverrides(a, s)
	registerUsage(a, s)
	registerStats(a, s)
	registerAnalytics(a, s)
	registerAuditLog(a, s)
	registerBilling(a, s)
}
