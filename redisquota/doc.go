// Package redisquota keeps the state of quota trackers in Redis or Valkey.
package redisquota
