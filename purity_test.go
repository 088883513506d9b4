package quota

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// The core is told the time and the rules, and answers: its files do no I/O, take no lock, start no goroutine and read
// no clock.
var (
	coreFiles = []string{
		"amounts.go", "window.go", "account.go", "hold.go", "expiry.go", "book.go", "turn.go", "match.go", "day.go", "admission.go", "settle.go", "correct.go", "refusal.go", "outbox.go", "rules.go",
		"verify.go", "bookjson.go", "bookread.go", "holdread.go", "bookwrite.go",
	}
	coreImports = []string{
		"bytes", "cmp", "container/heap", "encoding/json", "errors", "fmt", "maps", "math", "math/bits", "slices", "strconv",
		"strings", "time",
	}
	clockReads = []string{
		"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local",
	}
	printing = []string{"Print", "Println", "Printf", "Scan", "Scanln", "Scanf"}
)

// impurities returns what a file of the core must not do. In bookjson.go, io is there for io.EOF alone.
func impurities(name string, source any) (found []string, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, 0)
	if err != nil {
		return nil, err
	}
	note := func(at ast.Node, what string) {
		found = append(found, fmt.Sprintf("%v: %s", files.Position(at.Pos()), what))
	}
	for _, one := range file.Imports {
		path, err := strconv.Unquote(one.Path.Value)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(coreImports, path) && path != "io" || one.Name != nil {
			note(one, "import of "+path)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			note(n, "go statement")
		case *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
			note(n, "channel")
		case *ast.SelectorExpr:
			of, _ := n.X.(*ast.Ident)
			if of == nil {
				break
			}
			switch what := n.Sel.Name; {
			case of.Name == "time" && slices.Contains(clockReads, what),
				of.Name == "fmt" && slices.Contains(printing, what),
				of.Name == "io" && what != "EOF":
				note(n, of.Name+"."+what)
			}
		}
		return true
	})
	return found, nil
}

func TestTheCoreIsPure(t *testing.T) {
	t.Parallel()
	for _, name := range coreFiles {
		found, err := impurities(name, nil)
		require.NoError(t, err)
		require.Empty(t, found)
	}
}

func TestWhatIsNotPureIsFound(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		`import "os"`, `import "sync"`, `import "context"`, `import "log"`, `import "log/slog"`, `import "net/http"`,
		`import "io/fs"`, `import "sync/atomic"`, `import "math/rand/v2"`, `import "runtime"`, `import "github.com/gofrs/flock"`,
		`import clock "time"`, `import . "time"`,
		"import \"time\"\nvar at = time.Now()", "import \"time\"\nvar read = time.Now",
		"import \"time\"\nfunc f() { time.AfterFunc(1, f) }", "import \"time\"\nfunc f(t time.Time) time.Duration { return time.Since(t) }",
		"import \"time\"\nfunc f() { <-time.After(1) }", "import \"time\"\nfunc f() { time.NewTimer(1) }",
		"import \"time\"\nvar zone = time.Local", "import \"fmt\"\nfunc f() { fmt.Println() }",
		"import \"io\"\nvar discard = io.Discard", "func f() { go f() }", "var c chan int", "func f() { select {} }",
	} {
		found, err := impurities("snippet.go", "package quota\n"+source)
		require.NoError(t, err, source)
		require.NotEmpty(t, found, source)
	}
	found, err := impurities("snippet.go", "package quota\nimport (\n\"io\"\n\"time\"\n)\nvar end, long = io.EOF, time.Hour\n")
	require.NoError(t, err)
	require.Empty(t, found)
}
