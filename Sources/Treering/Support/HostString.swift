// Paths, names, arguments and environment values, as the bytes that the host gives and takes. Linux has no encoding for
// them. A Swift String would replace bytes that are not UTF-8, and would take different bytes for equal.

import Glibc

/// The bytes of a path or an argument, without a zero byte. Equal only to the same bytes.
///
/// Literals and interpolations keep the bytes of their parts: `"\(directory)/lock"`. A String made from one
/// (`"\(path)"` in a message) is for people: bytes that are not text become `\xNN`.
struct HostString: Hashable, Sendable {
    let bytes: [UInt8]

    /// The bytes up to the first zero. The host would not see the rest.
    init(bytes: some Sequence<UInt8>) { self.bytes = Array(bytes.prefix { $0 != 0 }) }

    init(cString: UnsafePointer<CChar>) {
        bytes = UnsafeRawBufferPointer(start: cString, count: strlen(cString)).map { $0 }
    }

    init(_ text: String) { self.init(bytes: text.utf8) }

    var isEmpty: Bool { bytes.isEmpty }
    func hasPrefix(_ prefix: HostString) -> Bool { bytes.starts(with: prefix.bytes) }
    func dropFirst(_ count: Int) -> HostString { HostString(bytes: bytes.dropFirst(count)) }

    /// The parts between the separators, empty ones too.
    func split(_ separator: Unicode.Scalar, atMost count: Int = .max) -> [HostString] {
        bytes.split(separator: UInt8(ascii: separator), maxSplits: count - 1, omittingEmptySubsequences: false)
            .map { HostString(bytes: $0) }
    }

    /// Calls `body` with the bytes, terminated by a zero. The pointer is valid only inside `body`.
    func withCString<Result, Failure: Error>(
        _ body: (UnsafePointer<CChar>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var terminated: [CChar] = bytes.map { CChar(bitPattern: $0) }
        terminated.append(0)
        return try terminated.withUnsafeBufferPointer { (buffer) throws(Failure) in try body(buffer.baseAddress!) }
    }

    /// A zero-terminated copy for C. The caller frees it.
    var copy: UnsafeMutablePointer<CChar>? { withCString { strdup($0) } }
}

extension HostString: Comparable {
    static func < (left: HostString, right: HostString) -> Bool {
        left.bytes.lexicographicallyPrecedes(right.bytes)
    }
}

extension HostString: CustomStringConvertible {
    /// For people. Bytes that are not UTF-8, and control characters, become `\xNN`.
    var description: String {
        var text = ""
        var parser = Unicode.UTF8.ForwardParser()
        var rest = bytes.makeIterator()
        var position = 0
        while true {
            switch parser.parseScalar(from: &rest) {
            case .emptyInput: return text
            case .error(let length):
                for byte in bytes[position..<position + length] { text += Self.escaped(byte) }
                position += length
            case .valid(let units):
                let scalar = Unicode.UTF8.decode(units)
                text += scalar.value < 0x20 || scalar.value == 0x7F ? Self.escaped(bytes[position]) : String(scalar)
                position += units.count
            }
        }
    }

    private static func escaped(_ byte: UInt8) -> String { "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16) }
}

extension HostString: ExpressibleByStringInterpolation {
    init(stringLiteral text: String) { self.init(text) }
    init(stringInterpolation parts: StringInterpolation) { self.init(bytes: parts.bytes) }

    /// Accepts only values that have exactly one form as bytes.
    struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var bytes: [UInt8] = []

        init(literalCapacity: Int, interpolationCount: Int) { bytes.reserveCapacity(literalCapacity) }
        mutating func appendLiteral(_ text: String) { bytes += text.utf8 }
        mutating func appendInterpolation(_ other: HostString) { bytes += other.bytes }
        mutating func appendInterpolation(_ text: String) { bytes += text.utf8 }
        mutating func appendInterpolation(_ number: some BinaryInteger) { bytes += String(number).utf8 }
    }
}

// MARK: Where they come from

extension HostString {
    /// The arguments of this process, without the program's name.
    static var arguments: [HostString] {
        (1..<max(1, Int(CommandLine.argc))).compactMap { CommandLine.unsafeArgv[$0].map { HostString(cString: $0) } }
    }

    /// The value of a variable of the environment.
    static func environment(_ name: String) -> HostString? { getenv(name).map { HostString(cString: $0) } }
}
