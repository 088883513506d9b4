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
	s.showRefusals(e)
	if e.nextDue() != 0 {
		s.tracker.timer.consider(e)
	}
}

// freshenAll makes entries for the books that others have begun.
func (s *shared) freshenAll() {
	if s.tracker.file == nil || s.keeping.Load() > 0 {
		return
	}
	books, _, err := s.tracker.file.peek(nil)
	if err != nil {
		return
	}
	for name := range books {
		s.tracker.entryOf(name)
	}
}

// reread asks the store for the newest book, without waiting, when the entry's is older than a moment.
func (s *shared) reread(e *entry) {
	t := s.tracker
	now := t.now()
	e.mu.Lock()
	old := now-e.fetched >= int64(lookAgain) || now < e.fetched
	if old {
		e.fetched = now
	}
	e.mu.Unlock()
	if !old || t.entries.find(e.name) != e {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.enqueue(&call{op: &searching{tracker: t, names: []string{e.name}}, done: make(chan struct{})})
	}
}
