package policy_test

import (
	"context"
	"fmt"

	"securefiles/authz"
	"securefiles/policy"
)

func Example() {
	ctx := context.Background()
	store, err := policy.Open(ctx, policy.Source{Policy: "testdata/example.csv"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/project/plan.pdf", "/project/hr/pay.pdf", "/elsewhere"} {
		decision, err := store.Decide(ctx, authz.Query{
			Principal: authz.Principal{Subject: "alice"}, Object: path, Action: authz.ActionRead,
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(path, decision.Effect, decision)
	}
	// Output:
	// /project/plan.pdf allow g1:example.csv:2
	// /project/hr/pay.pdf deny g1:example.csv:3
	// /elsewhere deny g1:-
}

func ExampleCheck() {
	for _, finding := range policy.Check(context.Background(), policy.Source{Policy: "testdata/bad/default/role-misspelt.csv"}, nil) {
		fmt.Println(finding)
	}
	// Output:
	// testdata/bad/default/role-misspelt.csv:3: error: no line uses the role "admim", so this one grants nothing: is it misspelt, or are the two names the wrong way round? [role-unused]
}

func ExampleStore_Explain() {
	ctx := context.Background()
	store, err := policy.Open(ctx, policy.Source{Policy: "testdata/example.csv"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, q := range []authz.Query{
		{Principal: authz.Principal{Subject: "bob", Groups: []string{"@contractors"}}, Object: "/project/hr/pay.pdf", Action: authz.ActionRead},
		{Principal: authz.Principal{Subject: "alice"}, Object: "/other/plan.pdf", Action: authz.ActionRead},
	} {
		explanation, err := store.Explain(ctx, q)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Print(explanation)
	}
	// Output:
	// deny: bob may not read /project/hr/pay.pdf
	//   groups: @contractors
	//   roles: project_member
	//   why: the explicit deny at line 3 wins over the allow at line 2
	//   decided by example.csv:3
	// lines that match:
	//   example.csv:2  p, project_member, /project/**, read, allow
	//       by way of bob -> @contractors -> project_member (line 5)
	//   example.csv:3  p, project_member, /project/hr/**, read, deny
	//       by way of bob -> @contractors -> project_member (line 5)
	// deny: alice may not read /other/plan.pdf
	//   roles: project_member
	//   why: no line matches, and the model denies what no line allows
	// nearest lines:
	//   example.csv:2  p, project_member, /project/**, read, allow
	//       by way of alice -> project_member (line 4)
	//       holds  g(r.sub, p.sub): "alice" has the role "project_member"
	//       fails  globMatch(r.obj, p.obj): "/other/plan.pdf" does not match "/project/**"
	//       holds  r.act == p.act || p.act == "*": both are "read"
}
