package quota

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"
)

const (
	stateLimit      = 64 << 20        // bytes of a state that is read or written
	generationLimit = uint64(1) << 62 // above it a number in a file is damage
	uncertainToken  = uint64(1) << 63 // marks what generation answers while a save runs
)

var errNotAFile = errors.New("it is a directory or another thing that is not a file")

// A snapshot is one generation of the state. It is not changed once others can see it: books are handed out as clones.
type snapshot struct {
	generation uint64
	updatedAt  time.Time
	books      map[string]savedBook
	names      []string                // of the books, in order; nil: they have not been sorted yet
	days       map[string][]DaySummary // finished days that stand in the state itself
	info       os.FileInfo             // of the state's file; nil: the state's file does not say this
	fresh      bool                    // nothing has been saved
}

// says reports whether both are the same generation of the same state.
func (s *snapshot) says(other *snapshot) bool {
	return s.generation == other.generation && s.updatedAt.Equal(other.updatedAt) &&
		maps.EqualFunc(s.books, other.books, func(x, y savedBook) bool { return bytes.Equal(x.body, y.body) })
}

// A savedBook is a book and what the file says of it.
type savedBook struct {
	book      *Book
	key, body []byte // body nil: not yet encoded
}

func encodeBook(name string, book *Book) (savedBook, error) {
	key, err := json.Marshal(name)
	if err != nil {
		return savedBook{}, err
	}
	body, err := book.form().appendTo(make([]byte, 0, commonBook), true)
	if err != nil {
		return savedBook{}, err
	}
	book.changed = false
	return savedBook{book, key, slices.Clone(body)}, nil
}

const commonBook = 2 << 10 // bytes: most books take less

// encodeMissing encodes the books that came from another form.
func (s *snapshot) encodeMissing() error {
	var encoded map[string]savedBook
	for name, saved := range s.books {
		if saved.body != nil {
			continue
		}
		saved, err := encodeBook(name, saved.book.clone())
		if err != nil {
			return fmt.Errorf("encode the book of %q: %w", name, err)
		}
		if encoded == nil {
			encoded = maps.Clone(s.books)
		}
		encoded[name] = saved
	}
	if encoded != nil {
		s.books = encoded
	}
	return nil
}

// encode returns the file of a snapshot, in the room of what is not needed any more.
func (s *snapshot) encode(room []byte) []byte {
	size := 256
	for _, saved := range s.books {
		size += len(saved.key) + len(saved.body) + len("    : ,\n")
	}
	out := bytes.NewBuffer(slices.Grow(room[:0], size))
	fmt.Fprintf(out, "{\n  \"version\": %d,\n  \"generation\": %d,\n", stateVersion, s.generation)
	fmt.Fprintf(out, "  \"updated_at\": %q,\n  \"books\": {", s.updatedAt.Format(time.RFC3339Nano))
	separator := "\n    "
	if s.names == nil {
		s.names = slices.Sorted(maps.Keys(s.books))
	}
	for _, name := range s.names {
		out.WriteString(separator)
		out.Write(s.books[name].key)
		out.WriteString(": ")
		out.Write(s.books[name].body)
		separator = ",\n    "
	}
	if len(s.books) > 0 {
		out.WriteString("\n  ")
	}
	out.WriteString("}")
	return seal(out.Bytes())
}

// seal ends a file with the checksum of what it says, so that a number that has been damaged is not taken for another.
func seal(data []byte) []byte {
	return append(data, checksum(data)...)
}

func checksum(data []byte) string {
	return fmt.Sprintf(",\n  \"checksum\": \"crc32c:%08x\"\n}\n", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

// sealed reports whether the checksum at the end of data is right.
func sealed(data []byte) bool {
	end := len(data) - len(checksum(nil))
	return end > 0 && string(data[end:]) == checksum(data[:end])
}

// clones returns copies of the named books, of all for nil.
func (s *snapshot) clones(names []string) map[string]*Book {
	books := make(map[string]*Book, len(names))
	if names == nil {
		for name, saved := range s.books {
			books[name] = saved.book.clone()
		}
		return books
	}
	for _, name := range names {
		if saved, ok := s.books[name]; ok && books[name] == nil {
			books[name] = saved.book.clone()
		}
	}
	return books
}

// readState reads a state. The error matches fs.ErrNotExist, ErrCorruptState or ErrNewerState where it is one of those.
// Books that are as known has them are not decoded again.
func readState(path string, known *snapshot) (*snapshot, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	s, err := decodeState(data, known)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, path)
	}
	s.info = info
	return s, nil
}

// readFile reads a file of at most stateLimit bytes.
func readFile(path string) ([]byte, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotAFile
	}
	if err != nil {
		return nil, nil, fileError("read", path, err)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fileError("read", path, err)
	}
	defer closeFile(file)
	if info, err = file.Stat(); err != nil {
		return nil, nil, fileError("read", path, err)
	}
	if info.Size() > stateLimit {
		if newerVersion(io.LimitReader(file, stateLimit)) {
			return nil, nil, fmt.Errorf("%w: %s", ErrNewerState, path)
		}
		return nil, nil, fmt.Errorf("%w: %s has %d bytes, more than the %d that are read",
			ErrCorruptState, path, info.Size(), stateLimit)
	}
	data := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, stateLimit+1)); err != nil {
		return nil, nil, fileError("read", path, err)
	}
	if data.Len() > stateLimit {
		return nil, nil, fmt.Errorf("%w: %s has more than the %d bytes that are read", ErrCorruptState, path, stateLimit)
	}
	return data.Bytes(), info, nil
}

// isNewer reports whether a newer version wrote the file.
func isNewer(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer closeFile(file)
	return newerVersion(io.LimitReader(file, stateLimit))
}

// newerVersion reports whether a newer version wrote a state. It reads no further than it has to.
func newerVersion(r io.Reader) bool {
	newer := false
	_ = eachField(json.NewDecoder(r), func(key string, value json.RawMessage) error {
		if key != "version" {
			return nil
		}
		newer = errors.Is(checkVersion(value), ErrNewerState)
		return io.EOF
	})
	return newer
}

// eachField calls f for every member of the JSON object that dec is at, and refuses a member named twice.
func eachField(dec *json.Decoder, f func(key string, value json.RawMessage) error) error {
	token, err := dec.Token()
	if err != nil {
		return early(err)
	}
	if token != json.Delim('{') {
		return errors.New("it is not an object")
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return early(err)
		}
		key, _ := token.(string)
		if seen[key] {
			return fmt.Errorf("%q stands there twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return early(err)
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return early(err)
}

// early puts the end of the data into words.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is empty or cut off")
	}
	return err
}

// fieldsOf returns the members of the one JSON object that data is.
func fieldsOf(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	fields := map[string]json.RawMessage{}
	err := eachField(dec, func(key string, value json.RawMessage) error {
		fields[key] = value
		return nil
	})
	if err != nil {
		return fields, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fields, errors.New("something follows its end")
	}
	return fields, nil
}

// decodeState reads the bytes of a state. Whatever is not exactly a state is ErrCorruptState, or ErrNewerState.
func decodeState(data []byte, known *snapshot) (*snapshot, error) {
	fields, err := fieldsOf(data)
	if err == nil && pythonVersion(fields["version"]) {
		s, err := decodePython(fields)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorruptState, err)
		}
		return s, nil
	}
	if newer := checkVersion(fields["version"]); errors.Is(newer, ErrNewerState) || err == nil {
		err = newer
	}
	if err == nil {
		err = checkSeal(data, fields)
	}
	if errors.Is(err, ErrNewerState) {
		return nil, err
	}
	var s *snapshot
	if err == nil {
		s, err = decodeFields(fields, known)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorruptState, err)
	}
	return s, nil
}

func checkVersion(raw json.RawMessage) error {
	var version int64
	if raw == nil {
		return errors.New("it has no version")
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	if version > stateVersion {
		return fmt.Errorf("%w (version %d)", ErrNewerState, version)
	}
	if version != stateVersion {
		return fmt.Errorf("version %d is not known", version)
	}
	return nil
}

// checkSeal checks the checksum, or, where there is none, what it would have vouched for.
func checkSeal(data []byte, fields map[string]json.RawMessage) error {
	if _, ok := fields["checksum"]; ok {
		if !sealed(data) {
			return errors.New(`its checksum is wrong (after an edit by hand, remove the line "checksum")`)
		}
		return nil
	}
	if !utf8.Valid(data) {
		return errors.New("it is not valid UTF-8")
	}
	return checkDuplicates(json.NewDecoder(bytes.NewReader(data)))
}

// checkDuplicates refuses objects that name a member twice, at any depth. The data is known to be valid.
func checkDuplicates(dec *json.Decoder) error {
	type level struct {
		keys  map[string]bool // nil: an array
		value bool            // the next token is the value of a member
	}
	var levels []level
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(levels) - 1
		if token == json.Delim('}') || token == json.Delim(']') {
			levels = levels[:top]
			continue
		}
		if top >= 0 && levels[top].keys != nil {
			if !levels[top].value {
				key, _ := token.(string)
				if levels[top].keys[key] {
					return fmt.Errorf("%q stands there twice", key)
				}
				levels[top].keys[key] = true
			}
			levels[top].value = !levels[top].value
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{keys: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		}
	}
}

func decodeFields(fields map[string]json.RawMessage, known *snapshot) (*snapshot, error) {
	s := &snapshot{books: map[string]savedBook{}}
	for _, needed := range []string{"generation", "books"} {
		if _, ok := fields[needed]; !ok {
			return nil, fmt.Errorf("it has no %s", needed)
		}
	}
	for key, value := range fields {
		var err error
		switch key {
		case "version", "checksum":
		case "generation":
			err = json.Unmarshal(value, &s.generation)
			if err == nil && (s.generation >= generationLimit || string(value) == "null") {
				err = errors.New("no generation is so high")
			}
		case "updated_at":
			err = json.Unmarshal(value, &s.updatedAt)
		case "books":
			err = s.decodeBooks(value, known)
		case "history":
			s.days, err = decodeDays(value)
		default:
			err = errors.New("it is not known")
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
	}
	return s, nil
}

func (s *snapshot) decodeBooks(data json.RawMessage, known *snapshot) error {
	if string(data) == "null" {
		return nil
	}
	return eachField(json.NewDecoder(bytes.NewReader(data)), func(name string, body json.RawMessage) error {
		if known != nil && bytes.Equal(known.books[name].body, body) {
			s.books[name] = known.books[name]
			return nil
		}
		if string(body) == "null" {
			return fmt.Errorf("%q has no book", name)
		}
		key, err := json.Marshal(name)
		if err != nil {
			return err
		}
		book := new(Book)
		if err := book.UnmarshalJSON(body); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if err := book.belongs(name); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		book.changed = false
		s.books[name] = savedBook{book, key, body}
		return nil
	})
}

// sameFile reports whether two looks at a path have seen the same file with the same content.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

const asideForm = "20060102T150405.000Z" // of the time in the name of what has been set aside

// unusedName returns path with suffix and the time, and a number where that name is taken.
func unusedName(path string, at time.Time) string {
	name := path + corruptSuffix + at.UTC().Format(asideForm)
	for n := 2; ; n++ {
		unused := name
		if n > 2 {
			unused = fmt.Sprintf("%s-%d", name, n-1)
		}
		if _, err := os.Lstat(unused); errors.Is(err, fs.ErrNotExist) {
			return unused
		}
	}
}

// setAside moves what cannot be read out of the way.
func (c *cycle) setAside(path string) (string, error) {
	to := unusedName(path, c.f.time())
	if err := c.f.files.rename(path, to); err != nil {
		return "", fileError("set aside", path, err)
	}
	return filepath.Base(to), nil
}
