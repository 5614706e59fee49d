package stripefake

import "net/http"

func (f *Fake) pageRoutes() *http.ServeMux { return http.NewServeMux() }
