// Checks every entry of a log with Go's own implementation, and nothing of FTE: log DIR KEY
//
// DIR is a shard, a directory with `checkpoint` and `tile`, and KEY a file with its public key.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	err := errors.New("usage: log DIR KEY")
	if len(os.Args) == 3 {
		err = checkLog(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// open reads a signed checkpoint.
func open(signed []byte, keyPath string) (string, tlog.Tree, error) {
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return "", tlog.Tree{}, err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return "", tlog.Tree{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return "", tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return "", tlog.Tree{}, errors.New("no checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return "", tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return lines[0], tlog.Tree{N: size, Hash: root}, err
}

// tiles reads the tiles of C2SP's layout: `tile/8/0/…` of Go is `tile/0/…` there.
type tiles struct{ dir string }

func (t tiles) Height() int                                { return 8 }
func (t tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		data, err := os.ReadFile(filepath.Join(t.dir, "tile", strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func checkLog(dir, keyPath string) error {
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	origin, tree, err := open(signed, keyPath)
	if err != nil {
		return err
	}
	if tree.N == 0 {
		if base64.StdEncoding.EncodeToString(tree.Hash[:]) != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
			return errors.New("the root of an empty log is another")
		}
		fmt.Printf("0 entries of %s\n", origin)
		return nil
	}
	reader := tlog.TileHashReader(tree, tiles{dir})
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("the tiles have another root than the checkpoint")
	}
	for first := int64(0); first < tree.N; first += 256 {
		width := min(256, tree.N-first)
		path := strings.TrimPrefix(tlog.Tile{H: 8, L: 0, N: first / 256, W: int(width)}.Path(), "tile/8/0/")
		bundle, err := os.ReadFile(filepath.Join(dir, "tile", "entries", path))
		if err != nil {
			return err
		}
		indexes := make([]int64, width)
		for i := range indexes {
			indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for i, hash := range hashes {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d: its bundle ends before it", first+int64(i))
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:end]) != hash {
				return fmt.Errorf("entry %d is not the one that was logged", first+int64(i))
			}
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("bytes behind entry %d", first+width-1)
		}
	}
	fmt.Printf("%d entries of %s\n", tree.N, origin)
	return nil
}
