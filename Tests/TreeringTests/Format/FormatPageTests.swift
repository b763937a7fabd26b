// docs/format.md and the code say the same: every layout, change type, key space and kind of entry, in both directions.

import Glibc
import Testing

@testable import Treering

@Suite struct FormatPageTests {
    private static var layouts: [any DiskLayout.Type] {
        [
            Superblock.Layout.self, LogPosition.Layout.self, IndexRoot.Layout.self, SegmentHeader.Layout.self,
            BatchHeader.Layout.self, Record.Layout.self, ChangeHeader.Layout.self, InodeChange.self,
            InodeRecord.Layout.self,
            DirentChange.self, RemoveKeyChange.self, XattrChange.self, PayloadChange.self, ExtentChange.self,
            RemoveRangeChange.self, RemoveInodeChange.self, OrphanChange.self, MoveChange.self, ReserveChange.self,
            RunHeader.Layout.self, IndexPage.Header.self, IndexPage.LeafEntry.self, IndexPage.InnerEntry.self,
            IndexBitmapPage.Layout.self, IndexKey.Layout.self, Origin.Layout.self, InodeEntry.Layout.self,
            DirentEntry.Layout.self, XattrEntry.Layout.self, ExtentEntry.Layout.self, PayloadEntry.Layout.self,
            UsageEntry.Layout.self, TombstoneEntry.Layout.self, RemovalEntry.Layout.self, StagingLayout.Header.self,
            StagingLayout.Descriptor.self,
        ]
    }
    /// The repository: this file lies at Tests/TreeringTests/Format in it.
    private static let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(4)
        .joined(separator: "/")

    private static func lines(of path: String) throws -> [Substring] {
        let file = try #require(fopen("\(root)/\(path)", "r"), "\(path)")
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    private static func name(_ layout: any DiskLayout.Type) -> String {
        String(reflecting: layout).split(separator: ".").dropFirst().joined(separator: ".")
    }

    private static func layout(_ type: ChangeType) -> any DiskLayout.Type {
        switch type {
        case .inode: return InodeChange.self
        case .dirent: return DirentChange.self
        case .removeDirent, .removeXattr: return RemoveKeyChange.self
        case .xattr: return XattrChange.self
        case .payload: return PayloadChange.self
        case .extent: return ExtentChange.self
        case .removeRange: return RemoveRangeChange.self
        case .removeInode: return RemoveInodeChange.self
        case .orphan: return OrphanChange.self
        case .move: return MoveChange.self
        case .reserve: return ReserveChange.self
        }
    }

    /// The tables of the page, by the name in backticks of the heading above each.
    private static func page() throws -> [String: [String]] {
        var tables: [String: [String]] = [:]
        var heading = ""
        for line in try lines(of: "docs/format.md") {
            if line.hasPrefix("#") {
                let parts = line.split(separator: "`", omittingEmptySubsequences: false)
                heading = parts.count == 3 ? String(parts[1]) : ""
            } else if line.hasPrefix("|"), !heading.isEmpty {
                tables[heading, default: []].append(String(line))
            }
        }
        return tables
    }

    private static let head = ["| offset | size | field | what it is | more |", "|---|---|---|---|---|"]

    /// The table of a layout as the page has it; what no part covers is zero.
    private static func table(_ layout: any DiskLayout.Type) -> [String] {
        var rows = head
        var end = 0
        func fill(to offset: Int) {
            if offset > end { rows.append("| \(end) | \(offset - end) | – | zero | |") }
        }
        for part in layout.parts {
            fill(to: part.offset)
            let size = "\(part.byteCount)\(part.isRepeated ? " each" : "")"
            let note = "\(part.note)"
            rows.append(
                "| \(part.offset) | \(size) | `\(part.label)` | \(part.name) |\(note.isEmpty ? "" : " " + note) |")
            end = part.offset + part.byteCount
            if part.isRepeated { end = max(end, layout.byteCount) }
        }
        fill(to: layout.byteCount)
        return rows
    }

    private static func numbers<Kind: CaseIterable & RawRepresentable>(_ kind: Kind.Type) -> [String] {
        Kind.allCases.map { "| \($0.rawValue) | `\($0)` |" }
    }

    private func expect(_ found: [String]?, _ expected: [String], _ name: String) {
        #expect(found == expected, "docs/format.md should say of `\(name)`:\n\(expected.joined(separator: "\n"))")
    }

    @Test func everyLayoutIsOnThePageAsInTheCode() throws {
        let page = try Self.page()
        for layout in Self.layouts {
            let name = Self.name(layout)
            expect(page[name], Self.table(layout), name)
        }
        let tables = page.filter { $0.value.starts(with: Self.head) }.keys
        #expect(Set(tables) == Set(Self.layouts.map(Self.name)), "the page has a table of no layout")
    }

    @Test func everyNumberOfAKindIsOnThePage() throws {
        let page = try Self.page()
        let changes = ChangeType.allCases.sorted { $0.rawValue < $1.rawValue }
            .map { "| \($0.rawValue) | `\($0)` | `\(Self.name(Self.layout($0)))` |" }
        for (name, expected) in [
            ("ChangeType", changes), ("KeySpace", Self.numbers(KeySpace.self)),
            ("EntryKind", Self.numbers(EntryKind.self)), ("PayloadStorage", Self.numbers(PayloadStorage.self)),
        ] {
            // The last column is prose.
            let rows = page[name]?.dropFirst(2).map { row in
                row.split(separator: "|").dropLast().reduce("|") { $0 + $1 + "|" }
            }
            expect(rows, expected, name)
        }
    }

    /// A layout that this test does not know of could be wrong on the page. Layouts are in the folder Format.
    @Test func everyLayoutOfTheSourcesIsKnownHere() throws {
        var count = 0
        for folder in ["Sources/Treering/Format", "Sources/Treering/Format/Entries"] {
            for name in try HostString("\(Self.root)/\(folder)").names() where "\(name)".hasSuffix(".swift") {
                count += try Self.lines(of: "\(folder)/\(name)")
                    .count { $0.contains("struct ") && $0.contains(": DiskLayout") }
            }
        }
        #expect(count == Self.layouts.count)
    }

    /// Parts follow each other without overlapping, and end with the structure.
    @Test func partsFollowEachOther() {
        for layout in Self.layouts {
            let name = Self.name(layout)
            var end = 0
            for (index, part) in layout.parts.enumerated() {
                #expect(part.offset >= end && part.byteCount > 0, "\(name), \(part.label)")
                end = part.offset + part.byteCount
                if let last = part.inner.last { #expect(last.offset + last.byteCount <= part.byteCount, "\(name)") }
                if part.isRepeated {
                    #expect(index == layout.parts.count - 1 && part.offset == layout.byteCount, "\(name)")
                    end = part.offset
                }
            }
            #expect(end <= layout.byteCount, "\(name)")
        }
    }

    /// Wherever an origin is read without knowing what the entry is, it is found.
    @Test func everyEntryBeginsWithItsOrigin() {
        for origin in [
            InodeEntry.layout.origin, DirentEntry.layout.origin, XattrEntry.layout.origin, ExtentEntry.layout.origin,
            PayloadEntry.layout.origin, TombstoneEntry.layout.origin,
        ] { #expect(origin.offset == Origin.field.offset) }
    }

    /// Of every change the header is read first, then what it is about, whatever its type.
    @Test func everyChangeBeginsWithItsHeaderAndObject() {
        for type in ChangeType.allCases {
            let parts = Self.layout(type).parts
            #expect(parts[0].offset == 0 && parts[0].byteCount == ChangeHeader.storedByteCount, "\(type)")
            #expect(parts[1].offset == OrphanChange.layout.inode.offset, "\(type)")
            if let since = type.since, type != .inode {
                #expect(parts.contains { $0.label == "since" && $0.offset == since.offset }, "\(type)")
            } else if type != .inode {
                #expect(!parts.contains { $0.label == "since" }, "\(type)")
            }
        }
        #expect(IndexPage.leaf.key.offset == IndexPage.inner.key.offset)
    }
}
