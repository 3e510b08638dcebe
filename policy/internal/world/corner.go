package world

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// The corners: shapes that few policies have, and in which a mistake of an index
// hides from those that are usual.

// drawOrder puts the fields of a request in any order, and those of a policy where
// no effect asks for the first.
func (s *Shape) drawOrder(t *rapid.T) {
	if Chance(t, 3) {
		s.Request = rapid.Permutation(s.Request).Draw(t, "request")
	}
	if s.Effect != SubjectPriority && Chance(t, 3) {
		s.Policy = rapid.Permutation(s.Policy).Draw(t, "policy")
	}
}

// drawRoles adds roles of objects, in a domain or in none, and of actions.
func (s *Shape) drawRoles(t *rapid.T) {
	if !Chance(t, 3) {
		return
	}
	s.Roles = append(s.Roles, "g2 = _, _")
	if s.has("dom") && Chance(t, 2) {
		s.Roles[1] = "g2 = _, _, _"
	}
	if Chance(t, 2) {
		s.Roles = append(s.Roles, "g3 = _, _")
	}
}

func (s *Shape) hasRoles(definition string) bool {
	return slices.ContainsFunc(s.Roles, func(r string) bool { return strings.HasPrefix(r, definition) })
}

// corners are matchers of the kind. A role in the domain of a line is found by what
// the request's domain is only where the two are said to be equal.
func (s *Shape) corners(t *rapid.T, role, path string) []string {
	other := OneOf(t, "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch") + "(r.obj, p.obj)"
	corners := []string{
		role + " && (" + path + " || " + other + ")",
		role + " && " + path + " && " + other,
		other + " && r.act == p.act || " + role + " && " + path,
		role + " && " + path + " && !" + other,
		"g(r.sub, p.sub" + s.domainOf("r") + ") && g(p.act, r.act" + s.domainOf("r") + ") && " + path,
	}
	if s.has("dom") {
		const inItsDomain = "g(r.sub, p.sub, p.dom)"
		corners = append(corners,
			"r.obj == p.obj && r.dom == p.dom && "+inItsDomain,
			inItsDomain+" && r.obj == p.obj && r.act == p.act && r.dom == p.dom",
			inItsDomain+" && !(r.dom == p.dom) && r.obj == p.obj",
			inItsDomain+" && r.dom != p.dom && "+path,
			"!(r.dom == p.dom) && "+inItsDomain+" && "+path,
			inItsDomain+" && r.act == p.dom && "+path,
			inItsDomain+" && (r.dom == p.dom || r.act == p.act) && "+path,
			inItsDomain+` && (p.dom == "d1" || r.dom == p.dom) && r.obj == p.obj`,
			role+" && keyMatch2(r.dom, p.dom) && "+path,
		)
	}
	if s.hasRoles("g2 ") {
		objects := "g2(r.obj, p.obj)"
		if s.hasRoles("g2 = _, _, _") {
			objects = OneOf(t, "g2(r.obj, p.obj, r.dom)", "g2(r.obj, p.obj, p.dom)")
		}
		asked := []string{role + " && " + objects + " && r.act == p.act", role + " && (" + objects + " || " + path + ") && r.act == p.act"}
		if s.hasRoles("g3 ") {
			asked = append(asked, role+" && "+objects+" && g3(r.act, p.act)", objects+" && g3(r.act, p.act) && "+role, "g3(r.sub, p.sub) && "+objects+" || "+role+" && "+path)
		}
		corners = append(corners, asked...)
		corners = append(corners, asked...)
	}
	if s.has("ip") {
		corners = append(corners,
			role+" && "+path+` || ipMatch(r.ip, "10.0.0.0/8") && r.obj == p.obj`,
			role+` && ipMatch(r.ip, "10.0.0.0/8") && r.act == p.act`,
			role+" && "+path+" && ipMatch(r.ip, p.net)",
			"ipMatch(r.ip, p.net) && r.sub == p.sub",
			`ipMatch(r.ip, "10.0.0.0/8") && `+role+" && "+path,
			role+" && "+path+` && !ipMatch(r.ip, "10.0.0.0/8")`,
			`!ipMatch(r.ip, p.net) && r.sub == p.sub && `+path,
			`r.sub == "root" || ipMatch(r.ip, p.net) && `+path,
			`r.act == "read" && ipMatch(r.ip, "10.0.0.0/8") || `+role+" && "+path,
		)
	}
	return corners
}

// domainOf is a third argument for g.
func (s *Shape) domainOf(side string) string {
	if !s.has("dom") {
		return ""
	}
	return ", " + side + ".dom"
}

// drawManyRoles gives a name, or a group, more roles than most have: sets of so
// few and hops of so few are not enough.
func (s *Shape) drawManyRoles(t *rapid.T, role string, dated bool, line func(...string)) {
	name, _, _ := strings.Cut(role, " ")
	var domain []string
	if strings.Count(role, "_") == 3 {
		domain = []string{drawDomain(t)}
	}
	link := func(from, to string) {
		fields := append([]string{name, from, to}, domain...)
		if dated && Chance(t, 10) {
			fields = append(fields, drawTime(t), drawTime(t))
		}
		line(fields...)
	}
	start := OneOf(t, "alice", "alice", "@team")
	switch {
	case s.Effect == SubjectPriority || name != "g":
	case Chance(t, 5): // around where a set of them grows
		count := rapid.SampledFrom([]int{30, 31, 32, 33, 40, 63, 64, 65, 130}).Draw(t, "roles")
		last := OneOf(t, "staff", "r1", "r2")
		for i := range count {
			link(start, fmt.Sprintf("q%d", i))
		}
		link(OneOf(t, start, "q0", fmt.Sprintf("q%d", count-1)), last)
	case Chance(t, 4): // around the depth at which Casbin stops
		hops := rapid.IntRange(8, 12).Draw(t, "hops")
		previous := start
		for i := range hops {
			next := fmt.Sprintf("c%d", i)
			if i == hops-1 {
				next = "staff"
			}
			link(previous, next)
			previous = next
		}
	}
}

// Texts that reach over the 64th and the 128th character.
func drawLong(t *rapid.T, wild ...string) string {
	length := rapid.SampledFrom([]int{61, 62, 63, 64, 126, 127, 150}).Draw(t, "length")
	return strings.Repeat("l", length) + OneOf(t, wild...)
}
