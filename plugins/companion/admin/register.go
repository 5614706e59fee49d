package admin

import "github.com/danielgtaylor/huma/v2"

// register adds the operations to the API.
func register(a huma.API, s *service) {
	registerAdmins(a, s)
}
