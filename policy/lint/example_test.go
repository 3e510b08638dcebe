package lint_test

import (
	"context"
	"fmt"

	"securefiles/policy"
	"securefiles/policy/lint"
)

func ExampleCheck() {
	for _, finding := range lint.Check(context.Background(), policy.Files{Policy: "testdata/example/role-misspelt.csv"}, nil) {
		fmt.Println(finding)
	}
	// Output:
	// testdata/example/role-misspelt.csv:3: warning: no line uses the role "admim", so this one grants nothing: is it misspelt, or are the two names the wrong way round? [role-unused]
}
