package world

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
)

// KeyMatch2Model is the model of most Casbin gateways.
const KeyMatch2Model = `[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act
`

// Scale writes a policy for the built-in model, the same one each time: p
// lines of which every twentieth denies, roles in a tree of ten branches, three
// roles for each user. Nothing in it is refused, and warned of are denials alone: they
// are of what nobody may have.
func Scale(w io.Writer, p, users, roles int) error {
	random := rand.New(rand.NewPCG(1, 2))
	out := bufio.NewWriterSize(w, 64<<10)
	for i := range p {
		subject := fmt.Sprintf("role%d", i%roles)
		if i%10 == 9 {
			subject = fmt.Sprintf("user%d", random.IntN(users))
		}
		object := fmt.Sprintf("/team%d/project%d/**", i%1000, i/1000)
		if i%2 == 1 {
			object = fmt.Sprintf("/data/d%d/f%d.pdf", i/1000, i)
		}
		effect := "allow"
		if i%20 == 19 {
			effect = "deny"
		}
		fmt.Fprintf(out, "p, %s, %s, read, %s\n", subject, object, effect)
	}
	for i := 1; i < roles; i++ {
		fmt.Fprintf(out, "g, role%d, role%d\n", i, (i-1)/10)
	}
	for user := range users {
		step := 1 + random.IntN(max(1, roles/3)) // no role twice
		first := random.IntN(roles)
		for k := range min(3, roles) {
			fmt.Fprintf(out, "g, user%d, role%d\n", user, (first+k*step)%roles)
		}
	}
	return out.Flush()
}
