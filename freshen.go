package quota

// freshen brings an entry up to what others have saved: at once from a file, from a server within a moment.
func (s *shared) freshen(e *entry) {
	if s.keeping.Load() > 0 {
		return // the entry knows more than the store
	}
	t := s.tracker
	if t.file == nil {
		s.reread(e)
		return
	}
	token, known := t.file.generation()
	e.mu.Lock()
	fresh, installs := known && e.seen == token && token != 0, e.installs
	e.mu.Unlock()
	if fresh {
		return
	}
	books, token, err := t.file.peek([]string{e.name})
	s.tell()
	if err != nil {
		return // the next update reports what is wrong
	}
	s.show(e, books[e.name], token, installs)
}

// show replaces what an entry shows, unless an update has been quicker.
func (s *shared) show(e *entry, book *Book, token, installs uint64) {
	if book == nil {
		book = &Book{}
	}
	book.name = e.name
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.installs != installs || s.keeping.Load() > 0 {
		return
	}
	e.book, e.seen = book, token
	s.tracker.undelivered.look(book, s.tracker.writer)
	s.showRefusals(book, func() *rules { return e.rules }, nil)
	if e.nextDue() != 0 && !e.gone {
		s.tracker.timer.consider(e)
	}
}

// freshenAll makes entries for the books that others have begun, and drops those of books that are gone.
func (s *shared) freshenAll() {
	if s.keeping.Load() > 0 {
		return
	}
	if s.tracker.file == nil {
		s.rereadAll()
		return
	}
	installed := s.installed.Load()
	books, _, err := s.tracker.file.peek(nil)
	s.tell()
	if err != nil {
		return
	}
	for name := range books {
		s.tracker.entryOf(name)
	}
	s.prune(books, installed)
}

// prune drops the entries of templates, and of quotas that are not configured, whose books are not among all those that
// the store has, unless an update has come since they were read.
func (s *shared) prune(books map[string]*Book, installed uint64) {
	t := s.tracker
	for _, e := range t.entries.all() {
		if books[e.name] != nil || len(s.unsaved(e.name)) > 0 {
			continue
		}
		e.mu.Lock()
		if !e.gone && (!e.configured.Load() || e.rules.template) && s.keeping.Load() == 0 && s.installed.Load() == installed {
			t.entries.drop(e)
		}
		e.mu.Unlock()
	}
}

// reread asks the store for the newest book, without waiting, when what is shown is older than a moment.
func (s *shared) reread(e *entry) {
	now := s.tracker.now()
	e.mu.Lock()
	old, passing := over(e.fetched, now), e.gone
	if old {
		e.fetched = now
	}
	e.mu.Unlock()
	if !old {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !over(s.lookedAt, now) || passing && !s.mayAsk(e.name, now) {
		return
	}
	s.enqueue(&call{op: &searching{tracker: s.tracker, names: []string{e.name}}, done: make(chan struct{}), abandoned: true})
}

// rereadAll asks the store for all books, without waiting, once in a moment.
func (s *shared) rereadAll() {
	now := s.tracker.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !over(s.lookedAt, now) {
		return
	}
	s.lookedAt = now
	s.enqueue(&call{op: &rereading{}, done: make(chan struct{}), abandoned: true})
}

// searchForAlerts looks through all books for alerts that somebody who has died has left, once in a minute, and with very
// many quotas less often. Those of a server are asked for, and known by the next update.
func (s *shared) searchForAlerts(now int64) {
	t := s.tracker
	interval := takeOverAlerts * (1 + s.books/1000)
	if now-s.searched < interval && now >= s.searched || !t.delivers() {
		return
	}
	s.searched = now
	if t.file == nil {
		s.rereadAll()
		return
	}
	books, _, err := t.file.peek(nil)
	if err != nil {
		return // the update reports what is wrong
	}
	s.books = int64(len(books))
	for name, book := range books {
		book.name = name
		t.undelivered.look(book, t.writer)
	}
}

// mostAsked is how many names without an entry are looked for within a moment.
const mostAsked = 1024

// mayAsk reports whether a name without an entry has not been asked for within a moment. s is locked.
func (s *shared) mayAsk(name string, now int64) bool {
	if over(s.askedSince, now) {
		clear(s.asked)
		s.askedSince = now
	}
	if _, known := s.asked[name]; known || len(s.asked) >= mostAsked {
		return false
	}
	if s.asked == nil {
		s.asked = make(map[string]struct{})
	}
	s.asked[name] = struct{}{}
	return true
}

// over reports whether a moment has passed since then; 0: it was never.
func over(since, now int64) bool {
	return since == 0 || now-since >= int64(lookAgain) || now < since
}
