package policy_test

import (
	"context"
	"fmt"

	"securefiles/authz"
	"securefiles/policy"
)

func Example() {
	ctx := context.Background()
	store, err := policy.Open(ctx, policy.Files{Policy: "testdata/example.csv"}, nil)
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
