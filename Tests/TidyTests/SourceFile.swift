// A file of the repository as the rules of TidyTests see it. Knows as much of Swift's grammar as is needed to leave out
// comments and texts, and to find where a block ends.

import Foundation

/// A file with its path below the repository.
struct SourceFile {
    let path: String
    let text: String
    /// The text with comments and the contents of string literals as spaces; lines stay where they are. What an
    /// interpolation holds is code and stays.
    let code: [UInt8]

    init(_ path: String, _ text: String) {
        self.path = path
        self.text = text
        code = path.hasSuffix(".swift") ? CodeScanner.code(of: Array(text.utf8)) : Array(text.utf8)
    }

    var lineCount: Int { text.utf8.count { $0 == UInt8(ascii: "\n") } + (text.isEmpty || text.hasSuffix("\n") ? 0 : 1) }
    var isSwift: Bool { path.hasSuffix(".swift") }
    /// Whether it is a program, or a part of one, in another language: what a person or continuous integration runs, or a test.
    var isScript: Bool {
        if path.hasPrefix("mount-scripts/") || path.hasPrefix(".ci/") { return true }
        let name = path.split(separator: "/").last ?? ""
        return path.hasPrefix("Tests/")
            && (!name.contains(".") || [".sh", ".py", ".c"].contains(where: name.hasSuffix))
    }

    /// The folder of `Sources/Treering` that the file lies in, nil elsewhere.
    var layer: String? {
        let parts = path.split(separator: "/")
        guard parts.count >= 3, parts[0] == "Sources", parts[1] == "Treering" else { return nil }
        return parts.count == 3 ? "" : String(parts[2])
    }
}

/// A word or a bracket of a source.
struct Token: Equatable {
    var text: String
    var line: Int
    /// How many braces are open before it.
    var depth: Int
    /// Whether a dot stands right before it.
    var isMember: Bool
}

extension SourceFile {
    /// The words and the brackets `(){}[]` of the code, in order.
    var tokens: [Token] {
        var tokens: [Token] = []
        var line = 1
        var depth = 0
        var position = 0
        while position < code.count {
            let byte = code[position]
            let start = position
            position += 1
            switch byte {
            case UInt8(ascii: "\n"): line += 1
            case _ where Self.isWordByte(byte):
                while position < code.count, Self.isWordByte(code[position]) { position += 1 }
                let isMember = start > 0 && code[start - 1] == UInt8(ascii: ".")
                tokens.append(
                    Token(
                        text: String(decoding: code[start..<position], as: UTF8.self), line: line, depth: depth,
                        isMember: isMember))
            case _ where "(){}[]".utf8.contains(byte):
                if byte == UInt8(ascii: "}") { depth -= 1 }
                tokens.append(Token(text: String(UnicodeScalar(byte)), line: line, depth: depth, isMember: false))
                if byte == UInt8(ascii: "{") { depth += 1 }
            default: break
            }
        }
        return tokens
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), 0x80...:
            return true
        default: return false
        }
    }
}

/// Blanks comments and string literals.
private struct CodeScanner {
    /// What the scanner is inside of.
    private enum Frame {
        /// Code; inside an interpolation, the number of parentheses still open.
        case code(parentheses: Int)
        case string(hashes: Int, isMultiline: Bool)
    }

    private let bytes: [UInt8]
    private var out: [UInt8]
    private var position = 0
    private var frames = [Frame.code(parentheses: 0)]

    static func code(of bytes: [UInt8]) -> [UInt8] {
        var scanner = CodeScanner(bytes)
        while scanner.position < bytes.count { scanner.step() }
        return scanner.out
    }

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
        out = bytes
    }

    private func isAt(_ text: String, _ offset: Int = 0) -> Bool {
        let start = position + offset
        return start + text.utf8.count <= bytes.count && bytes[start..<start + text.utf8.count].elementsEqual(text.utf8)
    }

    private mutating func blank(_ count: Int) {
        for _ in 0..<count where position < bytes.count {
            if bytes[position] != UInt8(ascii: "\n") { out[position] = UInt8(ascii: " ") }
            position += 1
        }
    }

    private mutating func step() {
        switch frames.last! {
        case .code(let parentheses): stepInCode(parentheses)
        case .string(let hashes, let isMultiline): stepInString(hashes, isMultiline)
        }
    }

    private mutating func stepInCode(_ parentheses: Int) {
        if isAt("//") {
            while position < bytes.count, bytes[position] != UInt8(ascii: "\n") { blank(1) }
            return
        }
        if isAt("/*") {
            blank(2)
            while position < bytes.count, !isAt("*/") { blank(1) }
            return blank(2)
        }
        var hashes = 0
        while isAt("#", hashes) { hashes += 1 }
        if isAt("\"", hashes) {
            let isMultiline = isAt("\"\"\"", hashes)
            frames.append(.string(hashes: hashes, isMultiline: isMultiline))
            return blank(hashes + (isMultiline ? 3 : 1))
        }
        if frames.count > 1 {
            if isAt("(") { frames[frames.count - 1] = .code(parentheses: parentheses + 1) }
            if isAt(")") {
                if parentheses == 1 {
                    frames.removeLast()
                } else {
                    frames[frames.count - 1] = .code(parentheses: parentheses - 1)
                }
            }
        }
        position += 1
    }

    private mutating func stepInString(_ hashes: Int, _ isMultiline: Bool) {
        let marks = String(repeating: "#", count: hashes)
        let end = (isMultiline ? "\"\"\"" : "\"") + marks
        if isAt(end) {
            frames.removeLast()
            return blank(end.utf8.count)
        }
        if isAt("\\" + marks + "(") {
            blank(1 + hashes)
            frames.append(.code(parentheses: 0))
            return
        }
        if isAt("\\" + marks) { return blank(2 + hashes) }
        // A literal of one line never goes beyond it: a scanner gone astray recovers.
        if !isMultiline, isAt("\n") { frames.removeLast() }
        blank(1)
    }
}
