package proxy

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"postern/internal/netpoll"
	"postern/policy"
)

func TestEndingOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want ending
	}{
		{io.EOF, endClosed}, {io.ErrUnexpectedEOF, endClosed}, {net.ErrClosed, endClosed},
		{fmt.Errorf("reading: %w", io.EOF), endClosed}, {&net.OpError{Op: "read", Err: net.ErrClosed}, endClosed},
		{os.ErrDeadlineExceeded, endTimeout}, {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, endTimeout},
		{syscall.ECONNRESET, endReset}, {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, endReset},
		{syscall.EPIPE, endReset}, {errors.New("anything"), endReset}, {netpoll.ErrWouldBlock, endReset},
	} {
		if got := endingOf(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestNamesAreClosedSets compares the lists with the constants of their types
// in the source: a label that is not listed has no series at zero.
func TestNamesAreClosedSets(t *testing.T) {
	declared := constants(t, "names.go")
	for typ, listed := range map[string][]string{
		"Listener": texts(Listeners), "Outcome": texts(Outcomes), "Failure": texts(Failures), "KeyType": texts(KeyTypes),
		"UpstreamFailure": texts(UpstreamFailures), "Direction": texts(Directions),
	} {
		want := slices.DeleteFunc(declared[typ], func(s string) bool { return s == "" })
		slices.Sort(want)
		slices.Sort(listed)
		if len(want) == 0 || !slices.Equal(listed, want) {
			t.Errorf("%s: listed %q, declared %q", typ, listed, want)
		}
	}
	if slices.Contains(LegacyOutcomes, Accepted) || len(LegacyOutcomes) != len(Outcomes)-1 {
		t.Errorf("legacy outcomes %q", LegacyOutcomes)
	}
	for k, want := range map[policy.KeyTypes]KeyType{
		0: KeyNone, policy.RSA: KeyRSA, policy.ECDSAP256: KeyECDSA, policy.ECDSAP521: KeyECDSA, policy.Ed25519: KeyECDSA,
	} {
		if got := keyType(k); got != want {
			t.Errorf("key %d: %s, want %s", k, got, want)
		}
	}
}

func texts[T ~string](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// constants returns the values of the string constants of a file, by type.
func constants(t *testing.T, name string) map[string][]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string][]string)
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		typ, _ := spec.Type.(*ast.Ident)
		lit, _ := spec.Values[0].(*ast.BasicLit)
		if typ != nil && lit != nil && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				found[typ.Name] = append(found[typ.Name], s)
			}
		}
		return true
	})
	return found
}
