package explain_test

import (
	"context"
	"fmt"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/explain"
)

func ExampleDecision() {
	ctx := context.Background()
	store, err := policy.Open(ctx, policy.Files{Policy: "../testdata/example.csv"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, q := range []authz.Query{
		{Principal: authz.Principal{Subject: "bob", Groups: []string{"@contractors"}}, Object: "/project/hr/pay.pdf", Action: authz.ActionRead},
		{Principal: authz.Principal{Subject: "alice"}, Object: "/other/plan.pdf", Action: authz.ActionRead},
	} {
		explanation, err := explain.Decision(ctx, store, q)
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
