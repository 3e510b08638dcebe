package model

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	casbinmodel "github.com/casbin/casbin/v2/model"
)

// TimeMatch is the function that asks whether a line holds at the moment of a
// request: Casbin's util.TimeMatch, with a clock and a zone.
const TimeMatch = "timeMatch"

// PeriodColumns are the columns of p that timeMatch takes for a beginning and an
// end; -1 stands for an open one.
type PeriodColumns struct{ Begin, End int }

// Periods are the columns that timeMatch is asked about, in its order.
func (m *Model) Periods() []PeriodColumns {
	var out []PeriodColumns
	for i := range m.Root.Calls {
		if c := &m.Root.Calls[i]; c.Function == TimeMatch && len(c.Operands) == 2 {
			out = append(out, PeriodColumns{c.Operands[0].Column, c.Operands[1].Column})
		}
	}
	return out
}

// IdleDates are the columns called from and until in which nothing looks.
func (m *Model) IdleDates() []int {
	var idle []int
	for _, name := range []string{"from", "until"} {
		if column := m.PolicyField(name); column >= 0 && !m.Evaluates && !slices.Contains(m.Root.Columns, column) {
			idle = append(idle, column)
		}
	}
	return idle
}

// HasPeriods reports whether lines of p or of a role definition may have a
// beginning and an end.
func (m *Model) HasPeriods() bool { return len(m.Conditional) > 0 || len(m.Periods()) > 0 }

// PeriodOf returns the columns in which a term looks for a beginning and an end, if
// it does nothing else.
func PeriodOf(t *Term) (PeriodColumns, bool) {
	if t.Atom == nil || t.Atom.Kind != Period {
		return PeriodColumns{}, false
	}
	return PeriodColumns{t.Atom.Operands[0].Column, t.Atom.Operands[1].Column}, true
}

// optional returns how many columns stand at the end of p in which one timeMatch
// looks, and nothing else.
func (m *Model) optional() int {
	last := len(m.Policy) - 1
	for _, p := range m.Periods() {
		columns := []int{p.Begin, p.End}
		slices.Sort(columns)
		count := 0
		switch {
		case slices.Equal(columns, []int{last - 1, last}):
			count = 2
		case slices.Equal(columns, []int{-1, last}):
			count = 1
		default:
			continue
		}
		asked := 0
		for i := range m.Root.Calls {
			for _, operand := range m.Root.Calls[i].Operands {
				for _, column := range operand.Columns {
					if column > last-count {
						asked++
					}
				}
			}
		}
		special := slices.ContainsFunc(m.Policy[last+1-count:], func(name string) bool { return name == "eft" || name == "priority" || name == "sub" })
		if asked == count && !special {
			return count
		}
	}
	return 0
}

// Written returns the fields of a p line without those at its end that it may leave
// out and that are open.
func (m *Model) Written(fields []string) []string {
	if len(fields) < m.Optional || slices.ContainsFunc(fields[len(fields)-m.Optional:], func(f string) bool { return f != "_" }) {
		return fields
	}
	return fields[:len(fields)-m.Optional]
}

var condition = regexp.MustCompile(`,\s*\(\s*_\s*,\s*_\s*\)\s*$`)

// withoutCondition splits the condition of a beginning and an end off a role
// definition.
func withoutCondition(value string) (rest string, conditional bool) {
	at := condition.FindStringIndex(value)
	if at == nil {
		return value, false
	}
	return value[:at[0]], true
}

// Stock returns the model, or a text of it in which other functions are asked, for stock
// Casbin and policies whose g lines all hold: it has no conditions, of which Casbin asks
// none but that of the first role, and none that nobody registers again after each load.
func (m *Model) Stock(text string) (casbinmodel.Model, error) {
	stock, err := casbinmodel.NewModelFromString(text)
	if err != nil {
		return nil, fmt.Errorf("read the model %s: %w", m.File, err)
	}
	for kind := range m.Conditional {
		assertion := stock["g"][kind]
		assertion.Value, assertion.ParamsTokens = strings.TrimSuffix(strings.Repeat("_,", m.Roles[kind]), ","), nil
	}
	return stock, nil
}
