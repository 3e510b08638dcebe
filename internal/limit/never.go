package limit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"securefiles/authz"
)

// Known is who can come, as far as the configuration says.
type Known struct {
	// Sources says that there are sources of identity, Groups that one of them gives
	// groups, and Links that links are verified.
	Sources, Groups, Links bool
	// Subject reports whether a source knows a subject; nil means that any may come.
	Subject func(name string) bool
}

// Never returns what is wrong with limits that never refuse anything, whoever comes: one
// error at most of each.
func (l *Limits) Never(known Known) []*OptionError {
	var all []*OptionError
	for i, r := range l.list {
		if option, problem := r.never(known); problem != "" {
			all = append(all, &OptionError{i, option, problem})
		} else if other := l.hides(i); other != nil {
			all = append(all, &OptionError{i, "name", fmt.Sprintf("it never refuses anything: limit %s is about the same, and stricter", other.name)})
		}
	}
	return all
}

// never says why nobody comes of whom the limit is.
func (r *rule) never(known Known) (option, problem string) {
	switch {
	case r.per == PerLink && !known.Links:
		return "per", "there are no links: set links.keys_file, or leave the limit out"
	case r.per == PerGroup && r.everybody && !known.Groups:
		return "per", "no source of identity gives groups, so nobody shares it: name groups of everybody (@anyone, @authenticated) as of, or another per"
	case r.everybody || len(r.downloads) > 0:
		return "", ""
	}
	var why []string
	for _, g := range r.groups {
		switch {
		case g == authz.GroupAnyone, g == authz.GroupAuthenticated && (known.Sources || known.Links), g == authz.GroupLink && known.Links, !authz.IsBuiltinGroup(g) && known.Groups:
			return "", ""
		case g == authz.GroupLink:
			why = append(why, "there are no links, for "+g)
		case g == authz.GroupAuthenticated:
			why = append(why, "there is no source of identity, for "+g)
		default:
			why = append(why, "no source of identity gives groups, such as "+g+" (roles of the policy are none)")
		}
	}
	for _, s := range slices.Sorted(maps.Keys(r.subjects)) {
		if s == authz.Anonymous && r.per != PerGroup || s != authz.Anonymous && known.Sources && (known.Subject == nil || known.Subject(s)) {
			return "", ""
		}
		why = append(why, fmt.Sprintf("no source of identity knows %q", s))
	}
	if len(r.links) > 0 {
		if known.Links {
			return "", ""
		}
		why = append(why, "there are no links")
	}
	return "of", "it is of nobody: " + strings.Join(why, "; ")
}

// hides returns a limit that refuses all that one of the list does; nil if there is none.
// Of two that are alike, the later one is hidden.
func (l *Limits) hides(i int) *rule {
	r := l.list[i]
	for j, other := range l.list {
		if j == i || other.observe || other.per != r.per || other.bits6 != r.bits6 || !other.isOf(r) {
			continue
		}
		stricter := func(has, its int64, in, itsIn int64) bool {
			// As many or fewer in the same time; of another, nobody compares bursts here.
			return has == 0 || its > 0 && its <= has && in == itsIn
		}
		if !stricter(r.requests, other.requests, int64(r.requestsIn), int64(other.requestsIn)) || !stricter(r.bytes, other.bytes, int64(r.bytesIn), int64(other.bytesIn)) ||
			!stricter(r.places, other.places, 0, 0) || !stricter(r.rate, other.rate, 0, 0) {
			continue
		}
		if j > i && other.isHiddenBy(r) {
			continue // they are alike
		}
		return other
	}
	return nil
}

// isOf reports whether the limit is of everybody that another one is of, who share it in the
// same way.
func (r *rule) isOf(other *rule) bool {
	same := slices.Equal(slices.Sorted(slices.Values(r.groups)), slices.Sorted(slices.Values(other.groups))) &&
		maps.Equal(r.subjects, other.subjects) && maps.Equal(r.downloads, other.downloads) && maps.Equal(r.links, other.links)
	return same || r.everybody && r.per != PerGroup
}

// isHiddenBy reports whether an other limit is of the same, with the same amounts.
func (r *rule) isHiddenBy(other *rule) bool {
	return !other.observe && other.isOf(r) && r.requests == other.requests && r.bytes == other.bytes && r.places == other.places && r.rate == other.rate
}
