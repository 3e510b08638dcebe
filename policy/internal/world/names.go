package world

import (
	"slices"
	"strings"

	"securefiles/authz"

	casbinmodel "github.com/casbin/casbin/v2/model"
)

// What stands in the place of $sub and $group, and of the segments of a path that
// are the subject or the group: no function reads anything into it, and no pattern that is
// drawn holds a letter of it, or `/$sub/a|b` would find its b in the literal.
const subjectLiteral, groupLiteral = "QSQ", "QGQ"

// pathFunctions are Casbin's that take patterns of the path.
func pathFunctions() []string {
	return []string{"keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"}
}

// ofNames returns a model that asks the functions of standInForNames: Casbin does
// not let its own be replaced.
func ofNames(model string) string {
	for _, name := range pathFunctions() {
		model = strings.ReplaceAll(model, name+"(r.obj", name+"OfNames(r.obj")
	}
	return model
}

// standInForNames lets Casbin's own functions answer for patterns of the path that
// have $sub or $group in them, with literals in their place.
func (s *Stock) standInForNames() {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for _, name := range pathFunctions() {
		function := functions[name]
		s.enforcer.AddFunction(name+"OfNames", func(args ...any) (any, error) {
			path, isText := args[0].(string)
			pattern, isPattern := args[1].(string)
			if !isText || !isPattern || s.query == nil || path != s.query.Object || !strings.Contains(pattern, "/$") {
				return function(args...)
			}
			p := s.query.Principal
			groups := slices.DeleteFunc(slices.Clone(p.Groups), func(g string) bool {
				return !strings.HasPrefix(g, "@") || g == authz.GroupAnyone || g == authz.GroupAuthenticated
			})
			for _, group := range append(groups, "") {
				ok, err := s.substituted(name, function, path, pattern, map[string]string{"$sub": p.Subject, "$group": strings.TrimPrefix(group, "@")})
				if ok != false || err != nil {
					return ok, err
				}
			}
			return false, nil
		})
	}
}

// substituted tries one choice of segments after another.
func (s *Stock) substituted(name string, function func(...any) (any, error), path, pattern string, names map[string]string) (any, error) {
	parts, counts := strings.Split(pattern, "/"), []string(nil)
	for i, part := range parts {
		variable := strings.TrimSuffix(part, "$")
		if name != "regexMatch" || i < len(parts)-1 {
			variable = part
		}
		if name == "keyMatch" && strings.Contains(strings.Join(parts[:i], "/"), "*") || i == 0 || variable != "$sub" && variable != "$group" {
			continue
		}
		literal := subjectLiteral
		if variable == "$group" {
			literal = groupLiteral
		}
		parts[i] = strings.Replace(part, variable, literal, 1)
		counts = append(counts, variable)
	}
	pattern = strings.Join(parts, "/")
	var try func(segments []string, from, n int) (any, error)
	try = func(segments []string, from, n int) (any, error) {
		if n == len(counts) {
			return function(strings.Join(segments, "/"), pattern)
		}
		if strings.Contains(pattern, "|") && name != "globMatch" { // the other half may do without
			if ok, err := try(segments, from, n+1); ok != false || err != nil {
				return ok, err
			}
		}
		own := names[counts[n]]
		if own == "" || s.query.Principal.IsAnonymous() {
			return false, nil
		}
		literal := subjectLiteral
		if counts[n] == "$group" {
			literal = groupLiteral
		}
		for i := max(1, from); i < len(segments); i++ {
			if segments[i] != own {
				continue
			}
			replaced := slices.Clone(segments)
			replaced[i] = literal
			if ok, err := try(replaced, i+1, n+1); ok != false || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	return try(strings.Split(path, "/"), 0, 0)
}
