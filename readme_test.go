package quota_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// readmeImports are the packages that a snippet without an import clause may use.
func readmeImports() map[string]string {
	return map[string]string{
		"quota": "example.com/quota", "quotatest": "example.com/quota/quotatest",
		"bytes": "bytes", "context": "context", "errors": "errors", "fmt": "fmt", "http": "net/http", "json": "encoding/json",
		"log": "log", "os": "os", "strconv": "strconv", "testing": "testing", "time": "time",
	}
}

// readmeNames are what a snippet may use without declaring it.
const readmeNames = `ctx context.Context, tracker *quota.QuotaTracker, quotas []quota.Quota`

// A snippet is a block of code in the README.
type snippet struct {
	line int // of its first line
	code string
}

// snippets returns the blocks of one language.
func snippets(t *testing.T, language string) []snippet {
	t.Helper()
	lines := strings.Split(readme(t), "\n")
	var found []snippet
	for i := 0; i < len(lines); i++ {
		if lines[i] != "```"+language {
			continue
		}
		end := i + 1
		for end < len(lines) && lines[end] != "```" {
			end++
		}
		require.Less(t, end, len(lines), "the block in line %d does not end", i+1)
		found = append(found, snippet{i + 2, strings.Join(lines[i+1:end], "\n") + "\n"})
		i = end
	}
	return found
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// A snippetChecker checks the types of snippets without running them.
type snippetChecker struct {
	files   *token.FileSet
	exports map[string]string // by import path: the file with what the compiler exports
}

// newSnippetChecker has the packages that snippets may use compiled, and what those need.
func newSnippetChecker(t *testing.T) *snippetChecker {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}")
	for _, path := range readmeImports() {
		list.Args = append(list.Args, path)
	}
	out, err := list.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("%v: %s", err, failed.Stderr)
	}
	require.NoError(t, err)
	c := &snippetChecker{token.NewFileSet(), make(map[string]string)}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		c.exports[path] = file
	}
	return c
}

// check reports the first thing that is wrong with a snippet: a whole file, declarations, or statements.
func (c *snippetChecker) check(s snippet) error {
	parsed, err := c.parse(s)
	if err != nil {
		return err
	}
	lookup := func(path string) (io.ReadCloser, error) {
		if c.exports[path] == "" {
			return nil, fmt.Errorf("%s is not one of the packages that a snippet may use", path)
		}
		return os.Open(c.exports[path])
	}
	config := types.Config{Importer: importer.ForCompiler(c.files, "gc", lookup)}
	_, err = config.Check("readme", c.files, []*ast.File{parsed}, nil)
	return err
}

// parse completes a snippet to a file. The line comments keep the line numbers of the README.
func (c *snippetChecker) parse(s snippet) (*ast.File, error) {
	place := fmt.Sprintf("\n//line README.md:%d\n", s.line)
	if strings.HasPrefix(s.code, "package ") {
		return parser.ParseFile(c.files, "", strings.TrimPrefix(place, "\n")+s.code, parser.SkipObjectResolution)
	}
	file, err := parser.ParseFile(c.files, "", importsOf(s.code)+place+s.code, parser.SkipObjectResolution)
	if err != nil {
		// Not declarations, so statements: a function around them, whose parameters need not be used.
		function := "func _(" + readmeNames + ") error {" + place + s.code + "\nreturn nil\n}\n"
		file, err = parser.ParseFile(c.files, "", importsOf(function)+function, parser.SkipObjectResolution)
	}
	return file, err
}

// importsOf returns the beginning of a file, with import clauses for the packages that code names.
func importsOf(code string) string {
	var clauses []string
	for name, path := range readmeImports() {
		if regexp.MustCompile(`(^|[^\w."])` + name + `\.[A-Z]`).MatchString(code) {
			clauses = append(clauses, "import "+strconv.Quote(path)+"\n")
		}
	}
	slices.Sort(clauses)
	return "package readme\n" + strings.Join(clauses, "")
}

func TestEverySnippetOfTheReadmeCompiles(t *testing.T) {
	checker := newSnippetChecker(t)
	found := snippets(t, "go")
	require.GreaterOrEqual(t, len(found), 10)
	for _, s := range found {
		require.NoError(t, checker.check(s))
	}
}

func TestABrokenSnippetIsFound(t *testing.T) {
	checker := newSnippetChecker(t)
	for _, good := range []string{
		"package main\n\nfunc main() {}\n",
		"func f() string { return quota.DefaultPath }\n",
		"r, err := tracker.Reserve(ctx, \"gemini\")\nif err != nil {\n\treturn err\n}\ndefer r.Commit(ctx)\n",
	} {
		require.NoError(t, checker.check(snippet{1, good}))
	}
	for wrong, code := range map[string]string{
		"README.md:7: undefined: trakcer": "trakcer.Close()\n",
		"README.md:8: ":                   "err := tracker.Close()\nreturn err.Code\n",
		"declared and not used":           "r, err := tracker.Reserve(ctx, \"gemini\")\nif err != nil {\n\treturn err\n}\n",
		"not enough arguments":            "tracker.Reserve()\n",
		"README.md:7":                     "if {\n",
		"expected declaration":            "package main\n\nquota.InMemory()\n",
		"\"os\" imported and not used":    "package main\n\nimport \"os\"\n\nfunc main() {}\n",
		"not one of the packages":         "package main\n\nimport _ \"example.com/other\"\n\nfunc main() {}\n",
	} {
		require.ErrorContains(t, checker.check(snippet{7, code}), wrong, code)
	}
}

func TestTheConfigurationInTheReadmeCanBeRead(t *testing.T) {
	found := snippets(t, "json")
	require.NotEmpty(t, found)
	for _, s := range found {
		quotas, err := quota.ParseQuotas([]byte(s.code))
		require.NoError(t, err, "line %d", s.line)
		require.NotEmpty(t, quotas)
	}
}

// The README opens with the summary of this tracker, and quotes the refusal and the alert below it.
func TestWhatTheReadmeQuotesIsWhatTheTrackerPrints(t *testing.T) {
	ctx := t.Context()
	pacific, err := time.LoadLocation("America/Los_Angeles")
	require.NoError(t, err)
	clock := quotatest.NewClock(time.Date(2026, 1, 26, 8, 0, 0, 0, time.UTC)) // midnight in Los Angeles
	var alerts []string
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Clock:       clock,
		OnAlert:     func(a quota.Alert) { alerts = append(alerts, a.String()) },
		Quotas: []quota.Quota{
			{Name: "gemini", Limits: []quota.Limit{{Max: 1500, Window: quota.Daily(pacific)}}},
			{Name: "claude_pro", Limits: []quota.Limit{{Max: 200, Window: quota.Session(5 * time.Hour)}}},
			{Name: "claude_api", Limits: []quota.Limit{
				{Unit: quota.UnitUSD, Max: 50 * quota.Dollar, Window: quota.Monthly(nil, 1)},
				{Unit: quota.UnitTokens, Max: 400_000, Window: quota.Refill(time.Minute)},
			}},
			{Name: "github_models", Limits: []quota.Limit{{Max: 5, Window: quota.InFlight()}}},
			{Name: "openrouter", Limits: []quota.Limit{{Max: 50, Window: quota.Daily(time.UTC)}}},
		},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, tracker.Close()) }()

	record := func(name string, amounts ...quota.Amount) {
		require.NoError(t, tracker.RecordUsage(ctx, name, amounts...))
	}
	reserve := func(name string, amounts ...quota.Amount) {
		_, err := tracker.Reserve(ctx, name, amounts...)
		require.NoError(t, err)
	}
	clock.Advance(8 * time.Hour)
	record("claude_pro", quota.Requests(11))
	clock.Advance(time.Hour + 48*time.Minute)
	record("openrouter", quota.Requests(50))
	record("claude_api", quota.Requests(900), quota.Tokens(0), quota.USD(12.6075))
	record("gemini", quota.Requests(750))
	record("claude_pro", quota.Requests(26))
	for range 3 {
		reserve("gemini")
	}
	for range 2 {
		reserve("github_models")
	}
	reserve("claude_api", quota.Tokens(40_000), quota.USD(0.18))
	_, refused := tracker.Reserve(ctx, "openrouter")
	require.ErrorIs(t, refused, quota.ErrExceeded)

	page := readme(t)
	require.NotEmpty(t, snippets(t, "text"))
	require.Equal(t, snippets(t, "text")[0].code, tracker.DisplayStatus())
	require.Contains(t, page, refused.Error())
	require.Contains(t, page, alerts[len(alerts)-1])
}

func TestTheReadmeListsTheDefaultQuotas(t *testing.T) {
	page := readme(t)
	for _, q := range quota.DefaultQuotas() {
		require.Contains(t, page, "`"+q.Name+"`")
	}
}

func TestWhatTheReadmeLinksToIsThere(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(readme(t), -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		if target, _, _ := strings.Cut(link[1], "#"); target != "" && !strings.Contains(target, "://") {
			_, err := os.Stat(target)
			require.NoError(t, err)
		}
	}
}

func TestTheCommandsInTheReadmeAreThere(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	commands := regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(readme(t), -1)
	require.NotEmpty(t, commands)
	for _, command := range commands {
		require.True(t, strings.Contains(string(makefile), "\n"+command[1]+":"), "make %s", command[1])
	}
}

// The store of ExamplePersistence, which is what the README recommends to copy.
func TestThePersistenceOfTheExampleConforms(t *testing.T) {
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return storePersistence{new(keyValueStore), "quota"}, nil
	}))
}
