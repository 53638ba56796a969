package docs_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const module = "github.com/bodkin-net/bodkin"

// source evaluates constants of this module, exported or not, from its source.
// It knows nothing of other packages but time; whatever depends on them has
// no value.
type source struct {
	fset *token.FileSet
	pkgs map[string]*types.Package
	info types.Info
	ast  map[string][]*ast.File
}

func newSource(t *testing.T) *source {
	s := &source{
		fset: token.NewFileSet(),
		pkgs: map[string]*types.Package{"time": timePackage()},
		info: types.Info{Types: map[ast.Expr]types.TypeAndValue{}},
		ast:  map[string][]*ast.File{},
	}
	if _, err := s.value("wire/rendezvous.First"); err != nil {
		t.Fatal(err)
	}
	return s
}

// timePackage has what constants need of package time.
func timePackage() *types.Package {
	p := types.NewPackage("time", "time")
	name := types.NewTypeName(token.NoPos, p, "Duration", nil)
	d := types.NewNamed(name, types.Typ[types.Int64], nil)
	p.Scope().Insert(name)
	for name, v := range map[string]time.Duration{"Nanosecond": time.Nanosecond, "Microsecond": time.Microsecond,
		"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour} {
		p.Scope().Insert(types.NewConst(token.NoPos, p, name, d, constant.MakeInt64(int64(v))))
	}
	p.MarkComplete()
	return p
}

// Import makes source a types.Importer.
func (s *source) Import(path string) (*types.Package, error) {
	if p := s.pkgs[path]; p != nil {
		return p, nil
	}
	rest, ours := strings.CutPrefix(path, module)
	if !ours {
		return nil, errors.New("not read")
	}
	files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(rest), "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(s.fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s.ast[path] = append(s.ast[path], f)
	}
	if len(s.ast[path]) == 0 {
		return nil, fmt.Errorf("there is no package %s", path)
	}
	cfg := types.Config{Importer: s, Error: func(error) {}} // what other packages are for stays unknown
	s.pkgs[path], _ = cfg.Check(path, s.fset, s.ast[path], &s.info)
	return s.pkgs[path], nil
}

// value finds "wire/frame.MaxData": a constant, or an array of some; or
// "server.Limits.Idle": the default of a field, as the code fills it in.
func (s *source) value(name string) ([]string, error) {
	dir, names, ok := strings.Cut(name, ".")
	if !ok {
		return nil, errors.New("names no constant")
	}
	path := module + "/internal/" + dir
	if dir == "bodkin" {
		path = module
	}
	p, err := s.Import(path)
	if err != nil {
		return nil, err
	}
	names, field, isField := strings.Cut(names, ".")
	if isField {
		return s.defaultOf(path, p, names, field)
	}
	switch obj := p.Scope().Lookup(names).(type) {
	case *types.Const:
		return []string{plain(obj.Val())}, nil
	case *types.Var:
		for _, f := range s.ast[path] {
			for _, d := range f.Decls {
				if e := initializer(d, names); e != nil {
					return s.values(e)
				}
			}
		}
	}
	return nil, errors.New("is no constant")
}

func initializer(d ast.Decl, name string) ast.Expr {
	g, ok := d.(*ast.GenDecl)
	if !ok {
		return nil
	}
	for _, spec := range g.Specs {
		if v, ok := spec.(*ast.ValueSpec); ok && len(v.Values) == 1 && v.Names[0].Name == name {
			return v.Values[0]
		}
	}
	return nil
}

// defaultOf looks in the methods withDefaults of a type, or of the type that
// it makes, for the ways in which the code writes a default.
func (s *source) defaultOf(path string, p *types.Package, typ, field string) (found []string, err error) {
	err = fmt.Errorf("%s.withDefaults gives %s none", typ, field)
	for _, f := range s.ast[path] {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "withDefaults" || fn.Recv == nil || types.ExprString(fn.Recv.List[0].Type) != typ {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				var of, is ast.Expr
				switch n := n.(type) {
				case *ast.AssignStmt: // c.Field = x, x may be or(c.Field, default)
					if len(n.Lhs) == 1 && len(n.Rhs) == 1 {
						of, is = n.Lhs[0], n.Rhs[0]
					}
				case *ast.CompositeLit: // {&c.Field, default}
					if len(n.Elts) == 2 {
						of, is = n.Elts[0], n.Elts[1]
					}
				case *ast.CallExpr: // or(c.Field, default)
					if fn, ok := n.Fun.(*ast.Ident); ok && fn.Name == "or" && len(n.Args) == 2 {
						of, is = n.Args[0], n.Args[1]
					}
				}
				if u, ok := of.(*ast.UnaryExpr); ok {
					of = u.X
				}
				if sel, ok := of.(*ast.SelectorExpr); !ok || sel.Sel.Name != field {
					return true
				}
				if v, verr := s.values(is); verr == nil {
					found, err = v, nil
				}
				return true
			})
		}
	}
	return found, err
}

// values are those of a constant expression, or of the elements of a literal.
func (s *source) values(e ast.Expr) (all []string, err error) {
	if v := s.info.Types[e].Value; v != nil {
		return []string{plain(v)}, nil
	}
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, errors.New("is not constant")
	}
	for _, e := range lit.Elts {
		v, err := s.values(e)
		if err != nil {
			return nil, err
		}
		all = append(all, v...)
	}
	return all, nil
}

func plain(v constant.Value) string {
	if v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	return v.ExactString()
}
