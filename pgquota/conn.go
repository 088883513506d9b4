package pgquota

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// A pipeline is statements that are sent together and answered together: one round trip. They go out as unnamed statements
// that say the types of their parameters, as pgx does it in QueryExecModeExec: nothing is prepared, described or cached,
// so that the next statement may go to another server process. Parameters are sent in binary form, which needs no
// escaping, and whatever mode the pool is configured with.
type pipeline struct {
	batch      pgconn.Batch
	statements int
	err        error
}

// add appends a statement. Its arguments are string, *string, int, int64, *int64, []string, []*string, []int32 or []int64.
func (p *pipeline) add(sql string, args ...any) {
	values, types, formats := make([][]byte, len(args)), make([]uint32, len(args)), make([]int16, len(args))
	for i, arg := range args {
		var err error
		if types[i], values[i], err = encodeArgument(arg); err != nil {
			p.err = errors.Join(p.err, err)
		}
		formats[i] = pgtype.BinaryFormatCode
	}
	p.batch.ExecParams(sql, values, types, formats, nil)
	p.statements++
}

func encodeArgument(arg any) (oid uint32, value []byte, err error) {
	switch arg := arg.(type) {
	case string:
		return pgtype.TextOID, []byte(arg), nil
	case *string:
		if arg != nil {
			value = []byte(*arg)
		}
		return pgtype.TextOID, value, nil
	case int:
		return pgtype.Int4OID, binary.BigEndian.AppendUint32(nil, uint32(int32(arg))), nil
	case int64:
		return pgtype.Int8OID, binary.BigEndian.AppendUint64(nil, uint64(arg)), nil
	case *int64:
		if arg != nil {
			value = binary.BigEndian.AppendUint64(nil, uint64(*arg))
		}
		return pgtype.Int8OID, value, nil
	case []string, []*string:
		oid = pgtype.TextArrayOID
	case []int32:
		oid = pgtype.Int4ArrayOID
	case []int64:
		oid = pgtype.Int8ArrayOID
	default:
		return 0, nil, fmt.Errorf("an argument of type %T", arg)
	}
	value, err = pgtype.NewMap().Encode(oid, pgtype.BinaryFormatCode, arg, nil)
	return oid, value, err
}

// A reply is the rows that one statement returned, as text, and its command tag.
type reply struct {
	rows [][][]byte
	tag  string
}

// send has the statements carried out. It returns the replies of those that succeeded, in order, and what was wrong with
// the next one: what comes after it has not been carried out.
func (p *pipeline) send(ctx context.Context, conn *pgconn.PgConn) ([]reply, error) {
	if p.err != nil {
		return nil, fmt.Errorf("encode the arguments: %w", p.err)
	}
	results := conn.ExecBatch(ctx, &p.batch)
	var replies []reply
	for results.NextResult() {
		var r reply
		reader := results.ResultReader()
		for reader.NextRow() {
			values := reader.Values()
			row := make([][]byte, len(values))
			for i, value := range values {
				if value != nil {
					row[i] = append([]byte{}, value...)
				}
			}
			r.rows = append(r.rows, row)
		}
		tag, err := reader.Close()
		if err != nil {
			break
		}
		r.tag = tag.String()
		replies = append(replies, r)
	}
	err := results.Close()
	if err == nil && len(replies) != p.statements {
		err = fmt.Errorf("the server has answered %d statements of %d", len(replies), p.statements)
	}
	return replies, err
}

func parseInt(value []byte) (int64, error) {
	if value == nil {
		return 0, errors.New("null where a number is expected")
	}
	return strconv.ParseInt(string(value), 10, 64)
}
