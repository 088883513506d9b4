package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A task is one call to be made to whichever provider has room.
type task struct {
	number    int // from 0, in order of arrival
	id        string
	arrives   time.Duration // after the start
	prompt    int64         // tokens, known beforehand
	maxOutput int64         // tokens, the most it may generate: what is reserved
	output    int64         // tokens, what it will generate: only the simulated provider looks
}

// maxTokens bounds what one task may name, so that tokens times price cannot overflow.
const maxTokens = 1_000_000_000

// readFile reads the tasks in the file at path; its errors name the file.
func readFile(path string, seed uint64, parse func(io.Reader, uint64) ([]task, error)) ([]task, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	tasks, err := parse(file, seed)
	if err == nil && len(tasks) == 0 {
		err = errors.New("no tasks in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return tasks, nil
}

// builtinTasks is a short day's work: some quick questions, some long documents.
func builtinTasks(seed uint64) []task {
	tasks := make([]task, 36)
	for i := range tasks {
		random := randomOf(seed, i, forInput)
		t := task{number: i, id: fmt.Sprintf("task-%02d", i+1), arrives: time.Duration(i) * 700 * time.Millisecond}
		t.prompt = 400 + random.Int64N(1600)
		if i%6 == 5 {
			t.prompt += 6000
		}
		t.maxOutput = 100 + random.Int64N(300)
		t.output = t.maxOutput/4 + random.Int64N(t.maxOutput*3/4)
		tasks[i] = t
	}
	return tasks
}

// parseTasks reads JSON lines: {"id": "t1", "prompt_tokens": 1200, "max_output_tokens": 400}. Blank lines are skipped,
// everything else it does not expect is an error. All tasks arrive at once.
func parseTasks(r io.Reader, seed uint64) ([]task, error) {
	var tasks []task
	seen := map[string]int{}
	lines := bufio.NewScanner(r)
	line := 0
	for lines.Scan() {
		line++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		t, err := parseTask(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if first := seen[t.id]; first > 0 {
			return nil, fmt.Errorf("line %d: id %q is already on line %d", line, t.id, first)
		}
		seen[t.id] = line
		t.number = len(tasks)
		t.output = 1 + randomOf(seed, t.number, forInput).Int64N(t.maxOutput)
		tasks = append(tasks, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", line+1, err)
	}
	return tasks, nil
}

func parseTask(line []byte) (task, error) {
	var fields struct {
		ID        *string `json:"id"`
		Prompt    *int64  `json:"prompt_tokens"`
		MaxOutput *int64  `json:"max_output_tokens"`
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&fields); err != nil {
		return task{}, fmt.Errorf("not a task: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return task{}, errors.New("more than one value on the line")
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	switch {
	case fields.ID == nil || *fields.ID == "":
		return task{}, errors.New("id is missing")
	case strings.ContainsFunc(*fields.ID, unprintable):
		return task{}, fmt.Errorf("id %q has characters that cannot be printed", *fields.ID)
	case fields.Prompt == nil:
		return task{}, errors.New("prompt_tokens is missing")
	case *fields.Prompt < 0 || *fields.Prompt > maxTokens:
		return task{}, fmt.Errorf("prompt_tokens %d is not between 0 and %d", *fields.Prompt, maxTokens)
	case fields.MaxOutput == nil:
		return task{}, errors.New("max_output_tokens is missing")
	case *fields.MaxOutput < 1 || *fields.MaxOutput > maxTokens:
		return task{}, fmt.Errorf("max_output_tokens %d is not between 1 and %d", *fields.MaxOutput, maxTokens)
	}
	return task{id: *fields.ID, prompt: *fields.Prompt, maxOutput: *fields.MaxOutput}, nil
}

const traceHeader = "TIMESTAMP,ContextTokens,GeneratedTokens"

// parseTrace reads recorded traffic as the Azure LLM inference traces have it: a header, CRLF or LF, timestamps in
// order and without a zone. Tasks arrive as far apart as they did.
func parseTrace(r io.Reader, seed uint64) ([]task, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1 // checked below, where the line can be named
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil && err != io.EOF {
		return nil, err
	}
	if strings.Join(header, ",") != traceHeader {
		return nil, fmt.Errorf("line 1: the header is not %s", traceHeader)
	}
	var tasks []task
	var first, last time.Time
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return tasks, nil
		}
		if err != nil {
			return nil, err // names the line
		}
		line, _ := rows.FieldPos(0)
		at, t, err := parseRow(row)
		if err == nil && at.Before(last) {
			err = fmt.Errorf("timestamp %s is before that of the row above", row[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if len(tasks) == 0 {
			first = at
		}
		last = at
		t.number = len(tasks)
		t.id = fmt.Sprintf("line-%d", line)
		t.arrives = at.Sub(first)
		// The trace does not say what was asked for at most: somewhat more than what came.
		t.maxOutput = t.output + 1 + randomOf(seed, t.number, forInput).Int64N(t.output+64)
		tasks = append(tasks, t)
	}
}

func parseRow(row []string) (at time.Time, t task, err error) {
	if len(row) != 3 {
		return at, t, fmt.Errorf("%d fields instead of 3", len(row))
	}
	if at, err = time.Parse(time.DateTime, row[0]); err != nil { // also reads the fraction of a second
		return at, t, fmt.Errorf("timestamp %q is not like 2023-11-16 18:17:03.9799600", row[0])
	}
	if t.prompt, err = parseTokens("ContextTokens", row[1]); err != nil {
		return at, t, err
	}
	t.output, err = parseTokens("GeneratedTokens", row[2])
	return at, t, err
}

func parseTokens(column, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > maxTokens {
		return 0, fmt.Errorf("%s %q is not a whole number between 0 and %d", column, text, maxTokens)
	}
	return n, nil
}

const forInput, forOutcome = 0, 1

// randomOf returns a task's own source of chance, so that what happens to it does not depend on the others' timing.
func randomOf(seed uint64, number, purpose int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(number)<<1|uint64(purpose)))
}
