package mutants

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"strings"
)

// A mutant is one small change to the library, chosen when the tests run by its number.
type mutant struct {
	id     int // from 1 on
	file   string
	line   int
	within string // the function it is in
	expr   string // what is changed, or what stands around it
	change string
	nth    int // which of those that look the same, from 1 on
}

// key names the mutant by what it changes: it stays the same when lines move.
func (m *mutant) key() string {
	key := fmt.Sprintf("%s %s: %s: %s", m.file, m.within, m.expr, m.change)
	if m.nth > 1 {
		key += fmt.Sprintf(" #%d", m.nth)
	}
	return key
}

// mutator finds the mutants of a file and puts each behind its switch.
type mutator struct {
	source   *source
	file     *file
	edits    edits
	stack    []ast.Node
	within   string
	optional map[ast.Node]bool // statements that stand in a list, so that one may be left out
	leaf     map[ast.Node]bool // conditions without && and ||
}

func (m *mutator) run() {
	m.optional, m.leaf = make(map[ast.Node]bool), make(map[ast.Node]bool)
	for _, decl := range m.file.tree.Decls {
		m.within = "package"
		if function, ok := decl.(*ast.FuncDecl); ok {
			m.within = function.Name.Name
			if function.Recv != nil {
				receiver := m.file.text(function.Recv.List[0].Type)
				m.within = strings.TrimPrefix(receiver, "*") + "." + m.within
			}
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if n == nil {
				m.stack = m.stack[:len(m.stack)-1]
				return false
			}
			if !m.visit(n) {
				return false
			}
			m.stack = append(m.stack, n)
			return true
		})
	}
}

// add makes a mutant of what node stands for and returns its number.
func (m *mutator) add(node ast.Node, change string) int {
	return m.source.add(mutant{
		file: m.file.name, line: m.file.line(node), within: m.within, expr: m.file.short(node), change: change,
	})
}

// visit makes the mutants of one node, and tells whether there may be some in what it consists of.
func (m *mutator) visit(n ast.Node) bool {
	if expr, ok := n.(ast.Expr); ok {
		return m.expression(expr)
	}
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR // what constants say is compared somewhere, and there it is changed
	case *ast.FieldList:
		return false
	case *ast.BlockStmt:
		m.list(n.List)
	case *ast.CommClause:
		m.list(n.Body)
	case *ast.CaseClause:
		m.list(n.Body)
		if choice, ok := m.above(2).(*ast.SwitchStmt); ok && choice.Tag == nil {
			for _, cond := range n.List {
				m.condition(cond)
			}
		}
	case *ast.IfStmt:
		m.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			m.condition(n.Cond)
		}
	case *ast.ReturnStmt:
		m.returned(n)
	case *ast.BranchStmt:
		m.branch(n)
	}
	if stmt, ok := n.(ast.Stmt); ok && m.optional[stmt] && removable(stmt) {
		id := m.add(stmt, "removed")
		m.edits.wrap(m.file, stmt, fmt.Sprintf("if !mutant(%d) { ", id), " }")
	}
	return true
}

func (m *mutator) list(stmts []ast.Stmt) {
	for _, stmt := range stmts {
		m.optional[stmt] = true
	}
}

// above returns what the node being visited is a part of: its parent is above(1).
func (m *mutator) above(n int) ast.Node {
	if len(m.stack) < n {
		return nil
	}
	return m.stack[len(m.stack)-n]
}

// removable statements do something and yield nothing.
func removable(stmt ast.Stmt) bool {
	switch stmt := stmt.(type) {
	case *ast.AssignStmt:
		return stmt.Tok != token.DEFINE
	case *ast.IncDecStmt, *ast.SendStmt, *ast.GoStmt, *ast.DeferStmt:
		return true
	case *ast.ExprStmt:
		call, ok := stmt.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		name, ok := call.Fun.(*ast.Ident)
		return !ok || name.Name != "panic"
	}
	return false
}

// condition marks the parts of a condition that && and || combine.
func (m *mutator) condition(cond ast.Expr) {
	cond = ast.Unparen(cond)
	if combined, ok := cond.(*ast.BinaryExpr); ok && (combined.Op == token.LAND || combined.Op == token.LOR) {
		return // they mark their own
	}
	m.leaf[cond] = true
}

func (m *mutator) expression(e ast.Expr) bool {
	if _, ok := e.(*ast.FuncLit); ok {
		return true
	}
	value, ok := m.source.info.Types[e]
	switch {
	case ok && value.IsType():
		return false
	case ok && value.Value != nil:
		m.constant(e, value)
		return false
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		m.binary(e)
		return true
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			m.negate(e)
			return true
		}
	case *ast.CallExpr:
		m.extreme(e)
	case *ast.KeyValueExpr:
		return true
	}
	if m.leaf[e] {
		m.negate(e)
	}
	return true
}

// negate turns a condition around.
func (m *mutator) negate(e ast.Expr) {
	id := m.add(e, "negated")
	m.edits.wrap(m.file, e, "((", fmt.Sprintf(") != mutant(%d))", id))
}

// constant changes a number that is written out by one, in both directions, and exchanges true and false.
func (m *mutator) constant(e ast.Expr, value types.TypeAndValue) {
	if !m.literal(e) || m.hint(e) || m.inCase(e) {
		return
	}
	name, ok := m.source.typeName(value.Type)
	if !ok {
		return
	}
	around := m.around()
	switch value.Value.Kind() {
	case constant.Bool:
		opposite := fmt.Sprint(!constant.BoolVal(value.Value))
		id := m.add(around, m.file.short(e)+" to "+opposite)
		m.edits.wrap(m.file, e, fmt.Sprintf("(%s(", name), fmt.Sprintf(") != %s(mutant(%d)))", name, id))
	case constant.Int:
		if basic, ok := value.Type.Underlying().(*types.Basic); !ok || basic.Info()&types.IsInteger == 0 {
			return
		}
		up, down := m.bounds(e)
		ids := [2]int{}
		for i, wanted := range [2]bool{up, down} {
			if wanted {
				ids[i] = m.add(around, m.file.short(e)+[2]string{" plus 1", " minus 1"}[i])
			}
		}
		m.edits.wrap(m.file, e, fmt.Sprintf("mutantInt[%s](%d, %d, ", name, ids[0], ids[1]), ")")
	}
}

// around is what a literal stands in, so that its mutant can be recognised.
func (m *mutator) around() ast.Node {
	for i := 1; m.above(i) != nil; i++ {
		switch n := m.above(i).(type) {
		case *ast.ParenExpr, *ast.UnaryExpr:
		default:
			return n
		}
	}
	return m.file.tree
}

// literal reports whether a constant is written out, and does not lean on another that has a name.
func (m *mutator) literal(e ast.Expr) bool {
	written := true
	ast.Inspect(e, func(n ast.Node) bool {
		if name, ok := n.(*ast.Ident); ok {
			switch object := m.source.info.Uses[name].(type) {
			case *types.TypeName, *types.Builtin:
			default:
				written = written && object != nil && object.Parent() == types.Universe
			}
		}
		return written
	})
	return written
}

func (m *mutator) inCase(e ast.Expr) bool {
	clause, ok := m.above(1).(*ast.CaseClause)
	return ok && len(clause.List) > 0 && e.Pos() < clause.Colon
}

var comparisons = map[token.Token]struct{ name, edge string }{
	token.LSS: {"mutantLess", "< to <="},
	token.LEQ: {"mutantLessEqual", "<= to <"},
	token.GTR: {"mutantGreater", "> to >="},
	token.GEQ: {"mutantGreaterEqual", ">= to >"},
}

var calculations = map[token.Token]struct{ name, change string }{
	token.ADD: {"mutantAdd", "+ to -"},
	token.SUB: {"mutantSubtract", "- to +"},
	token.MUL: {"mutantMultiply", "* to /"},
	token.QUO: {"mutantDivide", "/ to *"},
	token.REM: {"mutantRemainder", "% to *"},
}

func (m *mutator) binary(e *ast.BinaryExpr) {
	operand := m.source.info.Types[e.X].Type
	name, ok := m.source.typeName(operand)
	switch e.Op {
	case token.LAND, token.LOR:
		m.condition(e.X)
		m.condition(e.Y)
		change, function := "&& to ||", "mutantAnd"
		if e.Op == token.LOR {
			change, function = "|| to &&", "mutantOr"
		}
		id := m.add(e, change)
		m.edits.operator(m.file, e, fmt.Sprintf("%s(%d, ", function, id), ", func() bool { return (", ") })")
	case token.EQL, token.NEQ:
		m.negate(e)
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
		if !ok {
			return
		}
		how := comparisons[e.Op]
		edge := 0
		if !m.sameAtEdge(e) {
			edge = m.add(e, how.edge)
		}
		not := m.add(e, "negated")
		m.edits.operator(m.file, e, fmt.Sprintf("%s[%s](%d, %d, ", how.name, name, edge, not), ", ", ")")
	case token.ADD, token.SUB, token.MUL, token.QUO, token.REM:
		basic, isBasic := operand.Underlying().(*types.Basic)
		if !ok || !isBasic || basic.Info()&types.IsNumeric == 0 {
			return
		}
		how := calculations[e.Op]
		function := how.name
		if e.Op == token.REM && basic.Info()&types.IsInteger == 0 {
			return
		}
		id := m.add(e, how.change)
		m.edits.operator(m.file, e, fmt.Sprintf("%s[%s](%d, ", function, name, id), ", ", ")")
	}
}

// extreme exchanges min and max.
func (m *mutator) extreme(call *ast.CallExpr) {
	function, ok := call.Fun.(*ast.Ident)
	if !ok {
		return
	}
	if _, ok := m.source.info.Uses[function].(*types.Builtin); !ok || function.Name != "min" && function.Name != "max" {
		return
	}
	name, ok := m.source.typeName(m.source.info.Types[call].Type)
	if !ok {
		return
	}
	wrapper, change := "mutantMin", "min to max"
	if function.Name == "max" {
		wrapper, change = "mutantMax", "max to min"
	}
	id := m.add(call, change)
	m.edits.replace(m.file, call.Pos(), call.Lparen+1, fmt.Sprintf("%s[%s](%d, ", wrapper, name, id))
}

// returned makes each value of a return statement the zero value of its type.
func (m *mutator) returned(stmt *ast.ReturnStmt) {
	results := m.results()
	if results == nil || len(stmt.Results) == 0 {
		return
	}
	names := make([]string, results.Len())
	for i := range names {
		var ok bool
		if names[i], ok = m.source.typeName(results.At(i).Type()); !ok {
			return
		}
	}
	if len(stmt.Results) != len(names) { // the results of one call
		id := m.add(stmt, "zero values")
		var text strings.Builder
		fmt.Fprintf(&text, "if mutant(%d) { ", id)
		for i, name := range names {
			fmt.Fprintf(&text, "var mutant%d %s; ", i, name)
		}
		text.WriteString("return ")
		for i := range names {
			text.WriteString(strings.Repeat(", ", min(i, 1)) + fmt.Sprintf("mutant%d", i))
		}
		m.edits.wrap(m.file, stmt, text.String()+" }; ", "")
		return
	}
	for i, e := range stmt.Results {
		if m.zeroOrLiteral(e) {
			continue
		}
		change := "zero value"
		if len(names) > 1 {
			change = "zero value " + fmt.Sprint(i+1)
		}
		id := m.add(stmt, change)
		m.edits.wrap(m.file, e, fmt.Sprintf("mutantZero[%s](%d, ", names[i], id), ")")
	}
}

// zeroOrLiteral reports whether a returned value is the zero value already, or a literal, which is changed as one.
func (m *mutator) zeroOrLiteral(e ast.Expr) bool {
	value := m.source.info.Types[e]
	if value.IsNil() {
		return true
	}
	if value.Value != nil && m.literal(e) {
		return value.Value.Kind() != constant.String || constant.StringVal(value.Value) == ""
	}
	composed, ok := e.(*ast.CompositeLit)
	if !ok || len(composed.Elts) > 0 {
		return false
	}
	_, isStruct := value.Type.Underlying().(*types.Struct)
	return isStruct
}

// results are those of the function that a statement is in.
func (m *mutator) results() *types.Tuple {
	for i := 1; m.above(i) != nil; i++ {
		switch function := m.above(i).(type) {
		case *ast.FuncLit:
			return m.source.info.Types[function].Type.(*types.Signature).Results()
		case *ast.FuncDecl:
			return m.source.info.Defs[function.Name].Type().(*types.Signature).Results()
		}
	}
	return nil
}

// branch exchanges break and continue inside of loops.
func (m *mutator) branch(stmt *ast.BranchStmt) {
	if stmt.Label != nil || stmt.Tok != token.BREAK && stmt.Tok != token.CONTINUE {
		return
	}
	for i := 1; m.above(i) != nil; i++ {
		switch loop := m.above(i).(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			return
		case *ast.ForStmt:
			if loop.Cond == nil && stmt.Tok == token.CONTINUE {
				return // the loop would end where the function has nothing to return
			}
		case *ast.RangeStmt:
		default:
			continue
		}
		opposite := token.BREAK
		if stmt.Tok == token.BREAK {
			opposite = token.CONTINUE
		}
		id := m.add(stmt, "to "+opposite.String())
		m.edits.wrap(m.file, stmt, fmt.Sprintf("if mutant(%d) { %s }; ", id, opposite), "")
		return
	}
}
