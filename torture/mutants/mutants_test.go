package mutants

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

const tiny = `package tiny

func Sum(list []int) (sum int) {
	for i := 0; i < len(list); i++ {
		if list[i] == 7 {
			continue
		}
		sum += max(0, list[i])
	}
	return sum
}

func Unknown(n int) bool { return n > 3 && n < 5 }

func larger(a, b int) int {
	if a < b {
		a = b
	}
	return a
}
`

const tinyTest = `package tiny

import "testing"

func TestSum(t *testing.T) {
	if Sum([]int{1, 7, -1, 2}) != 3 || larger(1, 2) != 2 || larger(2, 1) != 2 {
		t.Fail()
	}
}
`

func TestMutantsOfALittleLibraryAreFoundAndHunted(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/tiny\n\ngo 1.25.0\n", "tiny.go": tiny, "tiny_test.go": tinyTest,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	none := &ledger{}
	one := &harness.Run{Seed: 1, Cases: harness.All, Dir: t.TempDir()}
	mutants, fates, err := try(t.Context(), root, []string{"tiny.go"}, one, none)
	require.NoError(t, err)
	require.Len(t, fates, len(mutants))
	var killed, survived []string
	for _, m := range mutants {
		if fates[m.id].killed {
			killed = append(killed, m.key())
		} else {
			survived = append(survived, m.key())
		}
	}
	slices.Sort(survived)
	require.Equal(t, []string{
		"tiny.go Unknown: n < 5: 5 minus 1",
		"tiny.go Unknown: n < 5: < to <=",
		"tiny.go Unknown: n < 5: negated",
		"tiny.go Unknown: n > 3 && n < 5: && to ||",
		"tiny.go Unknown: n > 3: 3 plus 1",
		"tiny.go Unknown: n > 3: > to >=",
		"tiny.go Unknown: n > 3: negated",
		"tiny.go Unknown: return n > 3 && n < 5: zero value",
	}, survived)
	for _, want := range []string{
		"tiny.go Sum: i < len(list): < to <=", "tiny.go Sum: list[i] == 7: 7 plus 1", "tiny.go Sum: continue: to break",
		"tiny.go Sum: sum += max(0, list[i]): removed", "tiny.go Sum: max(0, list[i]): max to min", "tiny.go Sum: return sum: zero value",
		"tiny.go larger: a < b: negated", "tiny.go larger: a = b: removed",
	} {
		require.Contains(t, killed, want)
	}
	require.True(t, harness.IsViolation(none.judge(mutants, fates)), "survivors that nobody has explained, and too many")
}

func TestTheLedgerNamesEverySurvivorAndNoOther(t *testing.T) {
	mutants := make([]mutant, 20)
	fates := make(map[int]fate)
	for i := range mutants {
		mutants[i] = mutant{id: i + 1, file: "a.go", within: "f", expr: "x", change: "removed", nth: i + 1}
		fates[i+1] = fate{killed: i != 0}
	}
	for _, c := range []struct{ text, wrong string }{
		{"# Title\n\n## Why\n\nBecause.\n\n- `a.go f: x: removed`\n", ""},
		{"", "1 survivors are not in MUTANTS.md"},
		{"## Why\nBecause.\n- `a.go f: x: removed`\n- `a.go f: x: removed #2`\n", "`a.go f: x: removed #2` is killed"},
		{"## Why, not always\nBecause.\n- `a.go f: x: removed`\n- `a.go f: x: removed #2`\n", ""},
		{"## Why\nBecause.\n- `a.go f: x: removed`\n- `b.go f: x: removed`\n", "`b.go f: x: removed` is no mutant any more"},
	} {
		l, err := readLedger(c.text)
		require.NoError(t, err)
		err = l.judge(mutants, fates)
		if c.wrong == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.wrong)
		}
	}
	for _, text := range []string{"- `a`\n", "## Why\n- `a`\n", "## Why\nBecause.\n- `a`\n- `a`\n"} {
		_, err := readLedger(text)
		require.ErrorContains(t, err, "twice, or below no reason")
	}
	fates[2], fates[3] = fate{}, fate{}
	l, err := readLedger("## Why\nBecause.\n- `a.go f: x: removed`\n- `a.go f: x: removed #2`\n- `a.go f: x: removed #3`\n")
	require.NoError(t, err)
	require.ErrorContains(t, l.judge(mutants, fates), "17 of 20 mutants were killed, less than 90 %")
}
