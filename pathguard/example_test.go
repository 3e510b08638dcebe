package pathguard_test

import (
	"errors"
	"fmt"

	"securefiles/pathguard"
)

// The way of a request: from nginx's $request_uri to the answer.
func Example() {
	p, err := pathguard.Parse("/downloads/project/caf%C3%A9%20plan.pdf?v=2", "/downloads/")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p)
	fmt.Println(p.Location("/protected/"))
	fmt.Println(pathguard.Disposition(pathguard.Attachment, p.Base()))
	// Output:
	// /project/café plan.pdf
	// /protected/project/café plan.pdf
	// attachment; filename="caf_ plan.pdf"; filename*=UTF-8''caf%C3%A9%20plan.pdf
}

// A refusal says why, and whether another download may have the target.
func ExampleParse() {
	for _, target := range []string{
		"/downloads/a.txt",
		"/downloads/../a.txt",
		"/downloads/a%2fb",
		"/archive/a.txt",
	} {
		_, err := pathguard.Parse(target, "/downloads/")
		fmt.Println(errors.Is(err, pathguard.ErrOutside), err)
	}
	// Output:
	// false <nil>
	// false the path has a dot segment
	// false the path holds an escaped slash
	// true the target is not below the URL of a download
}

// What an operator types is taken as it is.
func ExampleNew() {
	p, err := pathguard.New("/reports/100% sure?.txt")
	fmt.Println(p, err)
	// Output: /reports/100% sure?.txt <nil>
}

// The public URL of a path, for a link or a login redirect.
func ExamplePath_URL() {
	p, err := pathguard.New("/reports/100% sure?.txt")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.URL("/downloads/"))
	// Output: /downloads/reports/100%25%20sure%3F.txt
}

// A name that would end the header value early stays a name.
func ExampleDisposition() {
	fmt.Println(pathguard.Disposition(pathguard.Inline, `setup.bat";x=.txt`))
	// Output: inline; filename="setup.bat__x=.txt"; filename*=UTF-8''setup.bat%22%3Bx%3D.txt
}
