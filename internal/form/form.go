// Package form is about the JSON form in which books are kept, wherever that is.
package form

// Version is that of the form. Whoever keeps books notes it beside them, and leaves alone what has a higher one: see
// quota.ErrNewerState.
const Version = 2
