package mutants

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// source is the library's root package, and every mutant of the files that are mutated.
type source struct {
	root    string
	files   *token.FileSet
	info    *types.Info
	library *types.Package
	mutants []mutant
	seen    map[string]int    // how many mutants look the same
	aliases map[string]string // names of types in the switches, by how they are written there
	imports map[string]string // path by name, for the aliases
}

// file is one that is mutated.
type file struct {
	name  string
	files *token.FileSet
	tree  *ast.File
	data  []byte
}

//go:embed switches.go.txt
var switches string

// mutate reads the library in root, and returns its mutants and the text of each file with all of them behind switches.
func mutate(ctx context.Context, root string, names []string) (*source, map[string]string, error) {
	s := &source{root: root, seen: make(map[string]int), aliases: make(map[string]string), imports: make(map[string]string)}
	trees, err := s.check(ctx)
	if err != nil {
		return nil, nil, err
	}
	texts := make(map[string]string)
	for _, name := range names {
		tree := trees[name]
		if tree == nil {
			return nil, nil, fmt.Errorf("%s is not a file of the library any more: correct the list of files to mutate", name)
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, nil, err
		}
		m := &mutator{source: s, file: &file{name: name, files: s.files, tree: tree, data: data}}
		m.run()
		texts[name] = m.edits.apply(data)
	}
	return s, texts, nil
}

// check type-checks the library and returns its files by name.
func (s *source) check(ctx context.Context) (map[string]*ast.File, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles", ".")
	cmd.Dir = s.root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing what the library is built from: %w", err)
	}
	var last struct {
		ImportPath, Export string
		GoFiles            []string
	}
	exports := make(map[string]string)
	for decoder := json.NewDecoder(bytes.NewReader(out)); decoder.More(); {
		last.GoFiles = nil
		if err := decoder.Decode(&last); err != nil {
			return nil, err
		}
		exports[last.ImportPath] = last.Export // the library itself comes last
	}
	s.files = token.NewFileSet()
	trees := make(map[string]*ast.File)
	var list []*ast.File
	for _, name := range last.GoFiles {
		tree, err := parser.ParseFile(s.files, filepath.Join(s.root, name), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		trees[name] = tree
		list = append(list, tree)
	}
	s.info = &types.Info{
		Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object),
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	config := types.Config{Importer: importer.ForCompiler(s.files, "gc", lookup)}
	s.library, err = config.Check(last.ImportPath, s.files, list, s.info)
	return trees, err
}

func (s *source) add(m mutant) int {
	m.id = len(s.mutants) + 1
	m.nth = 1
	key := m.key()
	s.seen[key]++
	m.nth = s.seen[key]
	s.mutants = append(s.mutants, m)
	return m.id
}

// typeName is a name of t that nothing in the library's files hides; not ok when it can have none.
func (s *source) typeName(t types.Type) (name string, ok bool) {
	ok, parameter := true, false
	imports := make(map[string]string)
	text := types.TypeString(t, func(p *types.Package) string {
		if p == s.library {
			return ""
		}
		imports[p.Name()] = p.Path()
		return p.Name()
	})
	visitNamed(t, func(object *types.TypeName) {
		switch {
		case object.Pkg() == nil:
		case object.Pkg() != s.library:
			ok = ok && object.Exported()
		case object.Parent() != s.library.Scope():
			_, isParameter := object.Type().(*types.TypeParam)
			parameter = parameter || isParameter
			ok = ok && isParameter
		}
	})
	if !ok || parameter {
		return text, ok
	}
	if basic, isBasic := t.(*types.Basic); isBasic {
		return text, basic.Info()&types.IsUntyped == 0
	}
	if s.aliases[text] == "" {
		s.aliases[text] = "mutantType" + strconv.Itoa(len(s.aliases))
		for name, path := range imports {
			s.imports[name] = path
		}
	}
	return s.aliases[text], true
}

func visitNamed(t types.Type, visit func(*types.TypeName)) {
	switch t := t.(type) {
	case *types.Named:
		visit(t.Obj())
		for i := range t.TypeArgs().Len() {
			visitNamed(t.TypeArgs().At(i), visit)
		}
	case *types.Alias:
		visit(t.Obj())
	case *types.TypeParam:
		visit(t.Obj())
	case *types.Pointer:
		visitNamed(t.Elem(), visit)
	case *types.Slice:
		visitNamed(t.Elem(), visit)
	case *types.Array:
		visitNamed(t.Elem(), visit)
	case *types.Chan:
		visitNamed(t.Elem(), visit)
	case *types.Map:
		visitNamed(t.Key(), visit)
		visitNamed(t.Elem(), visit)
	case *types.Signature:
		for i := range t.Params().Len() {
			visitNamed(t.Params().At(i).Type(), visit)
		}
		for i := range t.Results().Len() {
			visitNamed(t.Results().At(i).Type(), visit)
		}
	}
}

// switchFile is the text of the file that the mutated ones take their switches from.
func (s *source) switchFile(recording bool) string {
	var imports, aliases strings.Builder
	for name, path := range s.imports {
		fmt.Fprintf(&imports, "\t%s %q\n", name, path)
	}
	for text, alias := range s.aliases {
		fmt.Fprintf(&aliases, "type %s = %s\n", alias, text)
	}
	return strings.NewReplacer("PACKAGE", s.library.Name(), "\t// IMPORTS\n", imports.String(), "// ALIASES\n", aliases.String(),
		"RECORDING", strconv.FormatBool(recording), "COUNT", strconv.Itoa(len(s.mutants))).Replace(switches)
}

func (f *file) offset(pos token.Pos) int { return f.files.Position(pos).Offset }

func (f *file) line(n ast.Node) int { return f.files.Position(n.Pos()).Line }

func (f *file) text(n ast.Node) string { return string(f.data[f.offset(n.Pos()):f.offset(n.End())]) }

// short is the text of a node in one line that is not too long.
func (f *file) short(n ast.Node) string {
	const most = 90
	text := []rune(strings.Join(strings.Fields(f.text(n)), " "))
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}

// edits are what is put into a text: before, behind or in place of what is there. Of two at one place, what encloses
// comes first in front and last behind; it has been visited first.
type edits []edit

type edit struct {
	at, end int
	text    string
	rank    int
}

func (e *edits) wrap(f *file, n ast.Node, before, after string) {
	at, end, visited := f.offset(n.Pos()), f.offset(n.End()), len(*e)+1
	*e = append(*e, edit{at, at, before, visited}, edit{end, end, after, -visited})
}

func (e *edits) replace(f *file, from, to token.Pos, text string) {
	*e = append(*e, edit{f.offset(from), f.offset(to), text, len(*e) + 1})
}

// operator wraps an expression and puts text in the place of its operator.
func (e *edits) operator(f *file, n *ast.BinaryExpr, before, text, after string) {
	e.wrap(f, n, before, after)
	e.replace(f, n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), text)
}

func (e edits) apply(data []byte) string {
	slices.SortStableFunc(e, func(x, y edit) int {
		if x.at != y.at {
			return x.at - y.at
		}
		return x.rank - y.rank
	})
	var out strings.Builder
	from := 0
	for _, one := range e {
		out.Write(data[from:one.at])
		out.WriteString(one.text)
		from = one.end
	}
	out.Write(data[from:])
	return out.String()
}
