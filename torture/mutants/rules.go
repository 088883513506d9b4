package mutants

import (
	"go/ast"
	"go/token"
	"go/types"
)

// The mutants left out are those that change nothing by construction, or the same as another. Each rule is narrow
// enough to be proved by reading it; whatever else turns out to change nothing is explained in MUTANTS.md.

// hint reports whether a number is only the room that a slice or map is made with.
func (m *mutator) hint(e ast.Expr) bool {
	call, ok := m.above(1).(*ast.CallExpr)
	if !ok || len(call.Args) < 2 {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	if !ok || name.Name != "make" {
		return false
	}
	switch m.source.info.Types[call].Type.Underlying().(type) {
	case *types.Slice:
		return len(call.Args) == 3 && call.Args[2] == e
	case *types.Map:
		return true
	}
	return false
}

// bounds says in which directions the number e is changed: `x > 0` with 0 minus 1 is `x >= 0`, a mutant that it has
// already.
func (m *mutator) bounds(e ast.Expr) (up, down bool) {
	compared, ok := m.above(1).(*ast.BinaryExpr)
	if !ok {
		return true, true
	}
	op := compared.Op
	if compared.X == e { // 0 < x is x > 0
		op = map[token.Token]token.Token{
			token.LSS: token.GTR, token.LEQ: token.GEQ, token.GTR: token.LSS, token.GEQ: token.LEQ,
		}[op]
	}
	switch op {
	case token.GTR, token.LEQ:
		return true, false
	case token.LSS, token.GEQ:
		return false, true
	}
	return true, true
}

// sameAtEdge reports whether a comparison decides nothing between equals:
//
//	if x != y { return x < y }
//	if x < y { x = y }
func (m *mutator) sameAtEdge(e *ast.BinaryExpr) bool {
	x, y := m.file.text(e.X), m.file.text(e.Y)
	same := func(a, b ast.Expr) bool {
		s, t := m.file.text(a), m.file.text(b)
		return s == x && t == y || s == y && t == x
	}
	if branch, ok := m.above(1).(*ast.IfStmt); ok && branch.Cond == e && branch.Else == nil && len(branch.Body.List) == 1 {
		assign, ok := branch.Body.List[0].(*ast.AssignStmt)
		return ok && assign.Tok == token.ASSIGN && len(assign.Lhs) == 1 && same(assign.Lhs[0], assign.Rhs[0])
	}
	if _, ok := m.above(1).(*ast.ReturnStmt); !ok {
		return false
	}
	branch, ok := m.above(3).(*ast.IfStmt)
	if !ok || branch.Body != m.above(2) || len(branch.Body.List) != 1 {
		return false
	}
	unequal, ok := branch.Cond.(*ast.BinaryExpr)
	return ok && unequal.Op == token.NEQ && same(unequal.X, unequal.Y)
}
