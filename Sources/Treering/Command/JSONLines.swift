// JSON as lines for people: "section.name  value". For the statistics that Treering itself writes, nothing more.

enum JSONLines {
    /// One line for each number, string or word, named by the path to it.
    static func lines(_ text: String) -> [String] {
        var reader = Reader(bytes: Array(text.utf8)[...])
        var found: [(name: String, value: String)] = []
        reader.value("", &found)
        let width = min(48, found.map(\.name.count).max() ?? 0)
        return found.map { entry in
            entry.name + String(repeating: " ", count: max(1, width - entry.name.count + 2)) + entry.value
        }
    }

    private struct Reader {
        var bytes: ArraySlice<UInt8>

        mutating func value(_ name: String, _ found: inout [(name: String, value: String)]) {
            skipSpace()
            switch bytes.first {
            case UInt8(ascii: "{"): object(name, &found)
            case UInt8(ascii: "["): list(name, &found)
            case UInt8(ascii: "\""): found.append((name, string()))
            default:
                let word = bytes.prefix { !",]} \n\t\r".utf8.contains($0) }
                bytes.removeFirst(word.count)
                if !word.isEmpty { found.append((name, String(decoding: word, as: UTF8.self))) }
            }
        }

        private mutating func object(_ name: String, _ found: inout [(name: String, value: String)]) {
            bytes.removeFirst()
            while true {
                skipSpace()
                guard bytes.first == UInt8(ascii: "\"") else { break }
                let key = string()
                skipSpace()
                if bytes.first == UInt8(ascii: ":") { bytes.removeFirst() }
                value(name.isEmpty ? key : name + "." + key, &found)
                skipSpace()
                guard bytes.first == UInt8(ascii: ",") else { break }
                bytes.removeFirst()
            }
            if !bytes.isEmpty { bytes.removeFirst() }
        }

        private mutating func list(_ name: String, _ found: inout [(name: String, value: String)]) {
            bytes.removeFirst()
            var position = 0
            while true {
                skipSpace()
                guard let first = bytes.first, first != UInt8(ascii: "]") else { break }
                value("\(name)[\(position)]", &found)
                position += 1
                skipSpace()
                guard bytes.first == UInt8(ascii: ",") else { break }
                bytes.removeFirst()
            }
            if !bytes.isEmpty { bytes.removeFirst() }
        }

        private mutating func string() -> String {
            bytes.removeFirst()
            var content: [UInt8] = []
            while let byte = bytes.popFirst(), byte != UInt8(ascii: "\"") {
                if byte == UInt8(ascii: "\\"), let next = bytes.popFirst() {
                    content.append(next)
                } else {
                    content.append(byte)
                }
            }
            return String(decoding: content, as: UTF8.self)
        }

        private mutating func skipSpace() {
            while let first = bytes.first, " \n\t\r".utf8.contains(first) { bytes.removeFirst() }
        }
    }
}
