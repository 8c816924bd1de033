// Checks that an entry is in a log, with Go's own implementation and nothing of FTE: proof PROOF LEAF KEY
//
// PROOF is a c2sp.org/tlog-proof file, LEAF the entry's bytes, KEY a file with the log's public key.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 4 {
		refuse("usage: proof PROOF LEAF KEY")
	}
	file, leaf, key := string(read(os.Args[1])), read(os.Args[2]), string(read(os.Args[3]))
	head, signed, _ := strings.Cut(file, "\n\n")
	head, isProof := strings.CutPrefix(head, "c2sp.org/tlog-proof@v1\n")
	if strings.HasPrefix(head, "extra ") {
		_, head, _ = strings.Cut(head, "\n")
	}
	lines := strings.Split(head, "\n")
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if !isProof || err != nil {
		refuse("no proof file")
	}
	var proof tlog.RecordProof
	for _, line := range lines[1:] {
		proof = append(proof, must(tlog.ParseHash(line)))
	}

	verifier := must(note.NewVerifier(strings.TrimSpace(key)))
	checkpoint := strings.Split(must(note.Open([]byte(signed), note.VerifierList(verifier))).Text, "\n")
	if len(checkpoint) != 4 || checkpoint[0] != verifier.Name() {
		refuse("no checkpoint of this log")
	}
	size, root := must(strconv.ParseInt(checkpoint[1], 10, 64)), must(tlog.ParseHash(checkpoint[2]))
	if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(leaf)); err != nil {
		refuse(err)
	}
	fmt.Printf("entry %d of %d entries of %s\n", index, size, verifier.Name())
}

func read(path string) []byte { return must(os.ReadFile(path)) }

func must[T any](value T, err error) T {
	if err != nil {
		refuse(err)
	}
	return value
}

func refuse(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
