// SPDX-License-Identifier: MulanPSL-2.0

// What bbolt makes of a file, told line by line: commands on standard input, one line of answer for each on standard
// output. Bytes are in hexadecimal, "-" is none; a path is the names of buckets with "/" between them.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

var (
	db *bolt.DB
	tx *bolt.Tx
)

// What a bucket and the transaction's outermost one have in common.
type container interface {
	Bucket(name []byte) *bolt.Bucket
	CreateBucket(name []byte) (*bolt.Bucket, error)
	CreateBucketIfNotExists(name []byte) (*bolt.Bucket, error)
	DeleteBucket(name []byte) error
	Cursor() *bolt.Cursor
}

func bytesOf(word string) []byte {
	if word == "-" {
		return []byte{}
	}
	decoded, err := hex.DecodeString(word)
	if err != nil {
		panic(err)
	}
	return decoded
}

func find(path string) container {
	if path == "." {
		return tx
	}
	var at container = tx
	for _, name := range strings.Split(path, "/") {
		bucket := at.Bucket(bytesOf(name))
		if bucket == nil {
			return nil
		}
		at = bucket
	}
	return at
}

func dump(at container, sequence uint64, indent int, sum func(string)) int {
	sum(fmt.Sprintf("%d s %d\n", indent, sequence))
	count := 0
	cursor := at.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		count++
		if value == nil {
			sum(fmt.Sprintf("%d b %x\n", indent, key))
			inner := at.Bucket(key)
			count += dump(inner, inner.Sequence(), indent+1, sum)
		} else {
			// Values are one byte many times.
			first := byte(0)
			if len(value) > 0 {
				first = value[0]
			}
			same := bytes.Count(value, []byte{first}) == len(value)
			sum(fmt.Sprintf("%d v %x %d %d %t\n", indent, key, len(value), first, same))
		}
	}
	return count
}

func check(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func problems() string {
	var found []string
	err := db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			found = append(found, err.Error())
		}
		return nil
	})
	if err != nil {
		found = append(found, err.Error())
	}
	if len(found) > 0 {
		return strings.Join(found, "; ")
	}
	return "ok"
}

func run(words []string) string {
	switch words[0] {
	case "open": // file, page size, whether the freelist is stored, kind of freelist, mode
		size, _ := strconv.Atoi(words[2])
		options := &bolt.Options{
			Timeout:        time.Second / 20,
			PageSize:       size,
			NoFreelistSync: words[3] == "absent",
			FreelistType:   bolt.FreelistType(words[4]),
			ReadOnly:       words[5] == "read",
			NoSync:         true,
		}
		var err error
		db, err = bolt.Open(words[1], 0600, options)
		return check(err)
	case "close":
		return check(db.Close())
	case "begin":
		var err error
		tx, err = db.Begin(words[1] == "write")
		return check(err)
	case "commit":
		return check(tx.Commit())
	case "rollback":
		return check(tx.Rollback())
	case "check":
		return problems()
	case "dump":
		hash := fnv.New64a()
		count := dump(tx, tx.Cursor().Bucket().Sequence(), 0, func(line string) { hash.Write([]byte(line)) })
		return fmt.Sprintf("%d %016x", count, hash.Sum64())
	}
	at := find(words[1])
	if at == nil {
		return "no such path"
	}
	key := bytesOf(words[2])
	switch words[0] {
	case "create":
		_, err := at.CreateBucket(key)
		return check(err)
	case "ensure":
		_, err := at.CreateBucketIfNotExists(key)
		return check(err)
	case "drop":
		return check(at.DeleteBucket(key))
	case "seek":
		found, value := at.Cursor().Seek(key)
		if found == nil {
			return "none"
		}
		if value == nil {
			return fmt.Sprintf("%x bucket", found)
		}
		return fmt.Sprintf("%x %d", found, len(value))
	}
	bucket := at.Cursor().Bucket()
	switch words[0] {
	case "put": // key, length, byte
		length, _ := strconv.Atoi(words[3])
		return check(bucket.Put(key, []byte(strings.Repeat(string(bytesOf(words[4])), length))))
	case "delete":
		return check(bucket.Delete(key))
	case "sequence":
		number, _ := strconv.ParseUint(words[3], 10, 64)
		return check(bucket.SetSequence(number))
	case "next":
		number, err := bucket.NextSequence()
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(number)
	}
	return "no such command"
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(make([]byte, 1<<20), 1<<30)
	output := bufio.NewWriter(os.Stdout)
	for input.Scan() {
		answer := run(strings.Fields(input.Text()))
		fmt.Fprintln(output, answer)
		if err := output.Flush(); err != nil {
			return
		}
	}
}
