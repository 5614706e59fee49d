package stripefake

import "strings"

// Declared are the addresses of the API with their parameters.
func Declared() map[string][]string {
	out := map[string][]string{}
	for _, e := range endpoints() {
		out[e.method+" "+e.path] = strings.Fields(e.params)
	}
	return out
}
