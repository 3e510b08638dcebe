package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	chrome "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"securefiles/internal/audit"
)

// chromium starts a browser, in a context that ends with the test.
func chromium(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: on Debian `make test` installs it; Ubuntu has none that apt-get installs")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("headless", "new"), chromedp.Flag("autoplay-policy", "no-user-gesture-required"), chromedp.UserDataDir(t.TempDir()))
	options = append(options, more...)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewContext(ctx)
	t.Cleanup(stop)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// red is a picture of one colour.
func red(t *testing.T) string {
	t.Helper()
	picture := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for i := range picture.Pix {
		picture.Pix[i] = []uint8{255, 0, 0, 255}[i%4]
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// redPDF is one page of that colour.
func redPDF() string {
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var at []int
	for i, object := range []string{
		"<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>", "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R>>",
		"<</Length 26>>stream\n1 0 0 rg 0 0 600 800 re f \nendstream",
	} {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj%sendobj\n", i+1, object)
	}
	xref := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, offset := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&b, "trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, xref)
	return b.String()
}

// A browser shows what it can show, under the default headers, and runs nothing.
func TestABrowserShowsWhatIsInline(t *testing.T) {
	t.Parallel()
	ctx := chromium(t)
	files := map[string]string{
		"picture.png":  red(t),
		"drawing.svg":  `<svg xmlns="http://www.w3.org/2000/svg" width="300" height="300"><style>rect { fill: red }</style><rect width="300" height="300"/><script>document.documentElement.setAttribute("ran", "yes")</script></svg>`,
		"page.html":    `<body style="background: red">text<script>document.documentElement.setAttribute("ran", "yes")</script>`,
		"document.pdf": redPDF(),
		"notes.txt":    "plain words\n",
	}
	for _, name := range []string{"film.webm", "sound.mp3"} {
		data, err := os.ReadFile(filepath.Join("testdata/shown", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	s := start(t, plan{
		policy: "p, @anyone, /**, read, allow\n", files: files,
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, disposition: inline}]\n",
		edit: func(_ *site, conf string) string {
			return strings.Replace(conf, "        video/mp4        mp4;", "        video/mp4        mp4;\n        video/webm webm;\n        audio/mpeg mp3;", 1)
		},
	})
	plays := `(() => { const v = document.querySelector("video, audio"); return !!v && !v.error && v.readyState >= 2 })()`
	for _, row := range []struct{ file, shows string }{ // JavaScript; empty for a red window
		{"picture.png", ""}, {"drawing.svg", ""}, {"page.html", ""}, {"document.pdf", ""}, {"film.webm", plays}, {"sound.mp3", plays},
		{"notes.txt", `document.body.innerText.includes("plain words")`},
	} {
		if err := chromedp.Do(ctx, chromedp.Navigate("http://"+s.web+"/downloads/"+row.file)); err != nil {
			t.Fatalf("%s: %v", row.file, err)
		}
		shown := false
		var shot []byte
		for deadline := time.Now().Add(patience); !shown && time.Now().Before(deadline); {
			var err error
			if row.shows != "" {
				shown, err = chromedp.Run(ctx, chromedp.Evaluate[bool](row.shows))
			} else if shot, err = chromedp.Run(ctx, chromedp.CaptureScreenshot()); err == nil {
				shown = isRed(t, shot)
			}
			if err != nil {
				t.Fatalf("%s: %v", row.file, err)
			}
		}
		if !shown {
			t.Errorf("%s is not shown: %s %s", row.file, row.shows, keep(t, shot))
		}
		if ran, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.hasAttribute("ran")`)); err != nil || ran {
			t.Errorf("%s ran a script: %v, %v", row.file, ran, err)
		}
	}
}

// isRed reports whether a picture has a patch of red.
func isRed(t *testing.T, shot []byte) bool {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	n, bounds := 0, picture.Bounds()
	for x := bounds.Min.X; x < bounds.Max.X; x++ {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			if c := color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA); c.R > 230 && c.G < 40 && c.B < 40 {
				n++
			}
		}
	}
	return n > 100
}

// keep leaves a picture where it can be looked at after the test has failed.
func keep(t *testing.T, shot []byte) string {
	t.Helper()
	if shot == nil {
		return ""
	}
	file := filepath.Join(os.TempDir(), strings.ReplaceAll(t.Name(), "/", "-")+".png")
	if err := os.WriteFile(file, shot, 0o600); err != nil {
		t.Fatal(err)
	}
	return "see " + file
}

// A page of another origin, and one of another site, cannot embed a file, nor tell
// one that its reader may have from one that they may not.
func TestAnotherSitesPageCannotEmbedNorTell(t *testing.T) {
	t.Parallel()
	ctx := chromium(t)
	files := someFiles()
	for _, dir := range []string{"public", "private"} {
		files[dir+"/picture.png"], files[dir+"/document.pdf"], files[dir+"/code.js"], files[dir+"/style.css"] = red(t), redPDF(), "ran = true", "body { color: red }"
	}
	s := start(t, plan{
		policy: alicesPolicy, files: files,
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, disposition: inline}]\n",
		edit: func(_ *site, conf string) string {
			return strings.Replace(conf, "location / { return 404; }", "location / { default_type text/html; return 200 '<!doctype html><body>'; }", 1)
		},
	})
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><body>")) // the browser waits for it
	}))
	t.Cleanup(other.Close)
	address := strings.TrimPrefix(other.URL, "http://")
	_, port, _ := strings.Cut(address, ":")
	// What a page can see of what it embeds.
	const probe = `(async (url) => {
	  const seen = {};
	  const embed = (tag, attribute, file, more) => new Promise((done) => {
	    const e = document.createElement(tag);
	    const end = (how) => { seen[tag + " " + file] = how + " " + (e.naturalWidth || 0) + " " + (e.duration || 0) + " " + (typeof ran); done() };
	    e.onload = () => end("load"); e.onerror = () => end("error"); e.onloadedmetadata = () => end("metadata");
	    setTimeout(() => end("nothing"), 1500);
	    Object.assign(e, more); e[attribute] = url + file;
	    document.body.append(e);
	  });
	  await Promise.all([
	    embed("img", "src", "picture.png"), embed("script", "src", "code.js"), embed("link", "href", "style.css", {rel: "stylesheet"}),
	    embed("iframe", "src", "document.pdf"), embed("object", "data", "picture.png"), embed("embed", "src", "picture.png"), embed("video", "src", "picture.png")]);
	  for (const mode of ["no-cors", "cors"]) {
	    try { const r = await fetch(url + "picture.png", {mode, credentials: "include"}); seen["fetch " + mode] = r.type + r.status + r.ok } catch (e) { seen["fetch " + mode] = "refused" }
	  }
	  for (const frame of document.querySelectorAll("iframe, object, embed")) seen[frame.tagName] = [frame.contentWindow ? frame.contentWindow.length : -1, frame.clientWidth];
	  return JSON.stringify(seen);
	})`
	see := func(host, dir string) map[string]any {
		t.Helper()
		if err := chromedp.Do(ctx, chromedp.Navigate("http://"+host+"/")); err != nil {
			t.Fatalf("%s %s: %v", host, dir, err)
		}
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](probe+`("http://`+s.web+`/downloads/`+dir+`/")`, chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatalf("%s %s: %v", host, dir, err)
		}
		var seen map[string]any
		if err := json.Unmarshal([]byte(text), &seen); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	for name, host := range map[string]string{"another origin of the site": address, "another site": "localhost:" + port} {
		allowed, refused := see(host, "public"), see(host, "private")
		for what, saw := range allowed {
			if fmt.Sprint(saw) != fmt.Sprint(refused[what]) {
				t.Errorf("%s can tell by %s: %v for a file that may be read, %v for another", name, what, saw, refused[what])
			}
			if text := fmt.Sprint(saw); strings.Contains(text, "load 64") || strings.Contains(text, "metadata") || strings.HasSuffix(text, "boolean") {
				t.Errorf("%s has embedded %s: %s", name, what, text)
			}
		}
		if len(allowed) < 9 {
			t.Errorf("%s saw %v", name, allowed)
		}
	}
	// The site itself may, or the test shows nothing.
	if own := see(s.web+"/own", "public"); !strings.HasPrefix(fmt.Sprint(own["img picture.png"]), "load 64") || fmt.Sprint(own["fetch cors"]) != "basic200true" {
		t.Errorf("the site's own page saw %v", own)
	}
}

// A person opens a counted link, sees its page on a phone and a desk, by day and by night,
// presses the button, and has the file, which is one use; a second one sees that it is used up.
func TestALinkInABrowser(t *testing.T) {
	t.Parallel()
	person, second := chromium(t), chromium(t)
	s := keepingLinks(t)
	link := "http://" + s.web + s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1")
	saved := t.TempDir()
	if _, err := chromedp.CallBrowser(person, chrome.SetDownloadBehavior, chrome.SetDownloadBehaviorParams{Behavior: "allow", DownloadPath: saved}); err != nil {
		t.Fatal(err)
	}
	look := func(ctx context.Context, name, text string) {
		t.Helper()
		for _, width := range []int64{320, 390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				if err == nil {
					err = chromedp.Do(ctx, chromedp.EmulateViewport(width, 700), chromedp.Navigate(link))
				}
				if err != nil {
					t.Fatal(err)
				}
				fits, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth <= innerWidth && document.body.innerText.includes("`+text+`")`))
				if err != nil || !fits {
					t.Errorf("%s at %d px, %s: it does not fit, or does not say %q: %v", name, width, scheme, text, err)
				}
				screenshot(t, ctx, fmt.Sprintf("%s-%d-%s", name, width, scheme))
			}
		}
	}
	look(person, "confirm", "plan.txt")
	if list := s.run(0, "link", "list"); !strings.Contains(list, "0 of 1") {
		t.Errorf("looking was a use: %s", list)
	}
	get := func(action string) {
		t.Helper()
		if pressed, err := chromedp.Run(person, chromedp.Evaluate[bool](action+`, true`)); err != nil || !pressed {
			t.Fatal(err)
		}
		s.eventually("the file is there", func() bool {
			text, err := os.ReadFile(filepath.Join(saved, "plan.txt"))
			return err == nil && string(text) == s.texts["project/plan.txt"]
		})
	}
	get(`document.querySelector("button").click()`)
	if list := s.run(0, "link", "list"); !strings.Contains(list, "1 of 1") {
		t.Errorf("after the download: %s", list)
	}
	if err := os.Remove(filepath.Join(saved, "plan.txt")); err != nil {
		t.Fatal(err)
	}
	get(`location.reload()`) // the link opened again is the same download
	if list := s.run(0, "link", "list"); !strings.Contains(list, "1 of 1") {
		t.Errorf("after another try: %s", list)
	}
	look(second, "ended", "This link has been used up")
}

// A cutter stands between a client and nginx, and cuts connections.
type cutter struct {
	address string
	after   atomic.Int64 // bytes that are let through until then; 0 cuts nothing
	reset   atomic.Bool  // as a network does that loses its way; else as a server does that dies
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := &cutter{address: l.Addr().String()}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			go c.carry(from.(*net.TCPConn), to)
		}
	}()
	return c
}

func (c *cutter) carry(from *net.TCPConn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, from)
		_ = to.Close()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := to.Read(buf)
		if n > 0 {
			if _, err := from.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		if c.after.Load() > 0 && c.after.Add(int64(-n)) <= 0 {
			if c.reset.Load() {
				_ = from.SetLinger(0)
			}
			return
		}
	}
}

// A person whose download is cut in the middle goes on with it: the browser asks for the
// rest by itself, or when it is told to. Both are the one use that there is, and so is a
// button that is pressed twice.
func TestAnInterruptedLinkIsOneUseInABrowser(t *testing.T) {
	t.Parallel()
	person := chromium(t)
	const size, cut = 8 << 20, 1 << 20
	s := start(t, linkedPlan(map[string]string{"project/film.bin": strings.Repeat("0123456789abcdef", size/16), "project/plan.txt": "plan\n"}))
	between := newCutter(t, s.web)
	dir, events := t.TempDir(), true
	if _, err := chromedp.CallBrowser(person, chrome.SetDownloadBehavior, chrome.SetDownloadBehaviorParams{Behavior: "allow", DownloadPath: dir, EventsEnabled: &events}); err != nil {
		t.Fatal(err)
	}
	states := make(chan chrome.DownloadProgressState, 1000)
	var film atomic.Pointer[string] // the last download of the film
	if err := chromedp.ListenBrowser(person, func(event any) {
		switch e := event.(type) {
		case *chrome.EventDownloadWillBegin:
			if e.SuggestedFilename == "film.bin" {
				film.Store(&e.GUID)
			}
		case *chrome.EventDownloadProgress:
			if now := film.Load(); now != nil && e.GUID == *now && e.State != chrome.DownloadProgressStateInProgress {
				states <- e.State
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	saved := func(name string) bool {
		text, err := os.ReadFile(filepath.Join(dir, name))
		return err == nil && string(text) == s.texts["project/"+name]
	}
	// done waits until the download of the film has ended, in one way or another.
	done := func() chrome.DownloadProgressState {
		t.Helper()
		select {
		case state := <-states:
			return state
		case <-time.After(patience):
			t.Fatalf("the download does not end\n%s", tail(s.log.String()))
			return ""
		}
	}
	var link struct{ ID, URL string }
	open := func(file string, uses string) {
		t.Helper()
		film.Store(nil)
		for len(states) > 0 { // Chromium may tell twice
			<-states
		}
		if err := json.Unmarshal([]byte(s.run(0, "link", "create", file, "--as", "alice", "--uses", uses, "--json")), &link); err != nil {
			t.Fatal(err)
		}
		if err := chromedp.Do(person, chromedp.Navigate("http://"+between.address+link.URL)); err != nil {
			t.Fatal(err)
		}
	}
	used := func(what, want string) {
		t.Helper()
		for line := range strings.Lines(s.run(0, "link", "list")) {
			if strings.HasPrefix(line, link.ID) && !strings.Contains(line, want) {
				t.Errorf("%s: not %s: %s", what, want, line)
			}
		}
	}

	open("/project/plan.txt", "2")
	press := func(times int) {
		t.Helper()
		at, err := chromedp.Run(person, chromedp.Evaluate[[]float64](`(() => { const r = document.querySelector("button").getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`))
		if err != nil {
			t.Fatal(err)
		}
		for n := range times {
			if err := chromedp.Do(person, chromedp.MouseClickXY(at[0], at[1], chromedp.ClickCount(n+1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, times := range []int{2, 1} {
		press(times)
		s.eventually("the file is sent", func() bool {
			n := 0
			all, _ := s.records("audit.jsonl")
			for _, r := range all {
				if r.Type == audit.TypeDelivery && r.Link == link.ID && r.Delivery == audit.Complete {
					n++
				}
			}
			return n > i
		})
	}
	used("pressed thrice", "1 of 2")

	for _, row := range []struct {
		name  string
		reset bool
	}{{"its server dies", false}, {"its network is gone", true}} {
		open("/project/film.bin", "1")
		between.reset.Store(row.reset)
		between.after.Store(cut)
		press(1)
		if row.reset { // of which Chromium says that it was canceled
			if state := done(); state != chrome.DownloadProgressStateCanceled {
				t.Fatalf("%s: %s, uncut", row.name, state)
			}
			if err := chromedp.Do(person, chromedp.Navigate("chrome://downloads")); err != nil {
				t.Fatal(err)
			}
			s.eventually("the browser goes on when it is told to", func() bool { // of which it sends no event
				_, err := chromedp.Run(person, chromedp.Evaluate[bool](`(() => {
					const items = document.querySelector("downloads-manager")?.shadowRoot?.querySelectorAll("downloads-item") ?? []
					for (const b of [...items].flatMap(i => [...i.shadowRoot?.querySelectorAll("button, cr-button") ?? []]))
						if (!b.hidden && b.textContent.trim() == "Resume") b.click()
					return true
				})()`))
				return err == nil && saved("film.bin")
			})
		}
		s.eventually("the file is there", func() bool { return saved("film.bin") })
		if between.after.Load() > 0 {
			t.Fatalf("%s: nothing was cut", row.name)
		}
		if err := os.Remove(filepath.Join(dir, "film.bin")); err != nil {
			t.Fatal(err)
		}
		s.eventually("both deliveries are recorded", func() bool {
			var whole, rest int
			all, _ := s.records("audit.jsonl")
			for _, r := range all {
				switch {
				case r.Type != audit.TypeDelivery || r.Link != link.ID:
				case r.Status == http.StatusPartialContent:
					rest++
				default:
					whole++
				}
			}
			return rest == 1 && whole == 1
		})
		used(row.name, "1 of 1")
		s.status("", link.URL, 410)
	}
}

// screenshot keeps a picture of what the browser shows in the directory SCREENSHOTS, if that is set.
func screenshot(t *testing.T, browser context.Context, name string) {
	t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(browser, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
