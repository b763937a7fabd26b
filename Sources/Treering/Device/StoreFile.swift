// The names of the files of a store.

/// A file of a store. Names on disk are the device's business.
enum StoreFile: Hashable, Sendable {
    case superblock
    case index
    /// An index being rebuilt; renamed to `index` when whole.
    case newIndex
    /// A temporary file without a name. `open(.scratch, create: true)` gives a new one each time, also on a device for
    /// reading only. It is gone when it is closed.
    case scratch
    case segment(SegmentNumber)
    /// A segment being written with zeros, not yet part of the store.
    case preparing(SegmentNumber)

    /// The path below the store's directory.
    var path: String {
        switch self {
        case .superblock: return "superblock"
        case .index: return "index"
        case .newIndex: return "index.new"
        case .scratch: return "(scratch)"
        case .segment(let number): return "segments/\(Self.digits(number)).seg"
        case .preparing(let number): return "segments/\(Self.digits(number)).new"
        }
    }

    /// The file that a path below the store's directory names; nil if it is not a file of a store.
    init?(path: String) {
        switch path {
        case "superblock": self = .superblock
        case "index": self = .index
        case "index.new": self = .newIndex
        default:
            guard path.hasPrefix("segments/"), path.utf8.count == 9 + 8 + 4,
                let number = UInt32(path.dropFirst(9).dropLast(4), radix: 16)
            else { return nil }
            if path.hasSuffix(".seg") {
                self = .segment(SegmentNumber(number))
            } else if path.hasSuffix(".new") {
                self = .preparing(SegmentNumber(number))
            } else {
                return nil
            }
            if self.path != path { return nil }
        }
    }

    /// The same for a path as the host tells it.
    init?(_ path: HostString) {
        guard let text = String(validating: path.bytes, as: UTF8.self) else { return nil }
        self.init(path: text)
    }

    private static func digits(_ number: SegmentNumber) -> String {
        let text = String(number.rawValue, radix: 16)
        return String(repeating: "0", count: 8 - text.count) + text
    }
}
