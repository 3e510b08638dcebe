package explain

import (
	"strings"

	"securefiles/policy"
)

// Resembling returns the names that the policy has, and somebody may mean by one that
// it has not: the same in other letter cases, or a group's without its @.
func Resembling(s *policy.Store, name string) []string {
	version := s.Version()
	if version == nil {
		return nil
	}
	var names []string
	for _, other := range version.Names() {
		if other == name {
			return nil
		}
		if strings.EqualFold(strings.TrimPrefix(other, "@"), name) {
			names = append(names, other)
		}
	}
	return names
}
