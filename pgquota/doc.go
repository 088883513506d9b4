// Package pgquota keeps the state of quota trackers in PostgreSQL.
package pgquota
